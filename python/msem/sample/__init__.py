"""Data frames and the sufficient statistics of a sample."""
