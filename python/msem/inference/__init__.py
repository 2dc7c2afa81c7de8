"""Sampling covariance, checks of a solution, discrepancy tests, fit measures, standardization."""
