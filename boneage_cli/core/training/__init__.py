"""Training of every model family, from settings and a data set to a run folder."""
