"""A trained model as a folder that others can check, use and make again."""
