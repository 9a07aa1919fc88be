"""Bridges to other libraries: Gymnasium both ways, MuJoCo, Stable-Baselines3."""
