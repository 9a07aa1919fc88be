"""One algorithm a file; every agent has the same methods in the same order."""
