"""Losses, advantages and updates: pure functions."""
