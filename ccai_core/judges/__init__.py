"""Judges: models that rate answers, how far they agree, and how far they can be trusted."""
