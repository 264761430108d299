"""Benchmarks of prediction, networks, backends and training on this machine."""
