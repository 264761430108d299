"""Audit of a data set: finds, counts and shows faults in its labels and images."""
