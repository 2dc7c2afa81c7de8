"""Level-specific moments: saturated estimates, their information, published matrices."""
