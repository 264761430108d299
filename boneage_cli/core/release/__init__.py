"""The model that the package carries: made of a training, with its card."""
