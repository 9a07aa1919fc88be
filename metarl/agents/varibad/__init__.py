"""VariBAD: a variational belief about the task, and a policy on it."""
