"""MAML and its relatives."""
