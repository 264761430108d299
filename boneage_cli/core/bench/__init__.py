"""How fast prediction, networks, runtimes and training are on this machine."""
