"""Runs: building, training, checkpoints, logs, results."""
