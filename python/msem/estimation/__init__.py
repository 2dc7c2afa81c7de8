"""Index maps, the objective, starting values and the optimiser."""
