"""Smoothing transformations r(zeta | z): from logits to a distribution over zeta. `base` is the contract."""
