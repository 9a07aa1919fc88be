"""Agents: a belief, an adaptation rule and an outer update each."""
