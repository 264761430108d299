"""What is wrong with a data set: its labels and every image of it, found, counted and shown."""
