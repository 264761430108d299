"""Training and evaluation of the key-point network."""
