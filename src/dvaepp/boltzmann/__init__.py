"""Boltzmann machines p(z) = exp(-E(z)) / Z, of use without any autoencoder: sampling, log Z, files."""
