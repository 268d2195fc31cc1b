"""Likelihoods p(x | zeta), site by site. `base` is the contract."""
