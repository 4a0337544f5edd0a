"""A paper draft from what a workspace holds: no number that is not traced to its source."""
