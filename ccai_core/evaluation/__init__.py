"""Evaluation: a baseline and a trained model on the same items, with intervals."""
