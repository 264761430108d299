"""Training and measuring the network that finds the key points of a hand."""
