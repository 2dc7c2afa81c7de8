"""Parameter table: lavaan's defaults, shared parameters, saturated and baseline models."""
