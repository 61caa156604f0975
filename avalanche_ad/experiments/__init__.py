"""Experiments: a recipe in, a saved run out."""
