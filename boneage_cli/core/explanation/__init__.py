"""Visual explanations: which parts of a radiograph determine a prediction."""
