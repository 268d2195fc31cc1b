"""Recipes, runs and reports: where strings become models."""
