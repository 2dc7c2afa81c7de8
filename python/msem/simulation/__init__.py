"""Populations, and samples drawn from them as data or as sufficient statistics."""
