"""Stepping environments: the only loop that does."""
