"""Priors p(z) over latent variables on one interface. `base` is the contract."""
