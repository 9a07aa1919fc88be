"""Types, randomness, errors and protocols that everything else stands on."""
