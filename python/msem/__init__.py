"""Multilevel structural equation modelling."""
