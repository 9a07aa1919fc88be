"""Algorithms of Stable-Baselines3."""
