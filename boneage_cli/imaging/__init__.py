"""One radiograph: reading it, and the geometry and contrast that a network sees."""
