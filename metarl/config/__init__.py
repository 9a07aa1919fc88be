"""Configurations, and finding families and agents by name; imports no torch."""
