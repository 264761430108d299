"""Evaluation of models on radiographs of known age or sex."""
