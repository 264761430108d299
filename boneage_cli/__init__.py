"""Bone age in years and months from hand radiographs: a research tool, not a medical device."""

__version__ = "0.1.0"
