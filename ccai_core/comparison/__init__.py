"""Comparison: evaluations of several models side by side, with intervals, pictures and trends."""
