"""Scores in the binary limit: importance-weighted likelihoods with what is known of their uncertainty."""
