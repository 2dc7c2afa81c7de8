"""What follows from estimates: a module for each question about a fit."""
