"""Temporally extended actions: a policy over options."""
