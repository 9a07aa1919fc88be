"""PEARL and soft actor-critic."""
