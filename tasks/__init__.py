"""Prefect tasks: they join the domain and the infrastructure."""
