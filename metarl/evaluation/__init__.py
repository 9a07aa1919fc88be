"""Meeting unseen tasks, and what to say of it."""
