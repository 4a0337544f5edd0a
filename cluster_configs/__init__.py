"""Cluster profiles (YAML), found by `infra.cluster.load_cluster`."""
