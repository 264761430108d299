"""Carpal and metacarpal regions of many radiographs."""
