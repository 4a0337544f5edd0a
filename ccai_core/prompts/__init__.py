"""Prompts: one loader a source, one split for all of them."""
