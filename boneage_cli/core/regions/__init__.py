"""Locating and cropping the carpal and metacarpal regions of radiographs."""
