"""Plain networks: tensors in, tensors out."""
