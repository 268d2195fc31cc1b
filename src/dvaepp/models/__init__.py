"""Variational autoencoders: networks composed into distributions."""
