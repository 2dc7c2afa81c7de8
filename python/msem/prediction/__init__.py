"""Scores of latent variables, distances from the model, influence of clusters."""
