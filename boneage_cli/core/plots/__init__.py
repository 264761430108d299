"""Plots as PNG files: of training, ages, sexes, stress and speed."""
