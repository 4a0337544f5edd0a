"""Package data: constitutions, scenarios, evaluation items, report template."""
