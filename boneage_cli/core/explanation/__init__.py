"""Where in a radiograph a model takes its answer from."""
