"""Prediction of bone age and sex from image files."""
