"""The mathematics of binary latents: no networks, no images."""
