"""Networks and distributions as pure functions of parameters."""
