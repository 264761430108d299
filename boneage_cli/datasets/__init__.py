"""Many radiographs: sources, the manifest that they all become, its audit and its cache."""
