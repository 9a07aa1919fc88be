"""Classical strategies for bandits and tabular MDPs."""
