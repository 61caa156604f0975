"""Gaussians: algebra, mixtures, stepwise EM, statistics of features, drift."""
