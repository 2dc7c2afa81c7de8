"""Replicate samples, intervals from them, and profiles of the likelihood."""
