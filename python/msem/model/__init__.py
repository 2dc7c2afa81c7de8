"""Parameter tables: the defaults of lavaan, shared parameters, groups; saturated, baseline and partial models."""
