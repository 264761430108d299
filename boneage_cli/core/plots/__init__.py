"""Plots of training, ages, sexes, stress test and speed, as PNG files."""
