"""Where and how work runs: clusters, jobs, leases, tracking, workspaces.

Knows nothing of constitutions, models or datasets; of `ccai_core` only its errors and config base.
"""
