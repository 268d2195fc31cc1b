"""Optimisers that recipes name. `base` is the contract."""
