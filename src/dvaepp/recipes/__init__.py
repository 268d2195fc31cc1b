"""Recipes: plain values from which data, model and objective are built; the paper's tables. Strings end in `build`."""
