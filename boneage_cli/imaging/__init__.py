"""Processing of one radiograph: reading, geometry and contrast of the network's input."""
