"""What a user gives as a sample: rows, streams, statistics of clusters and level-specific moments."""
