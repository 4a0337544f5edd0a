"""Prefect flows: one file for each thing a user starts; `python -m flows.NAME --help`."""

import os

# Before anything imports Prefect: it reads its settings once. What a user has set wins.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
# What our packages log belongs to the flow run, so the UI shows it.
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "ccai_core,infra,tasks")
# A wrong value is explained here; a link to pydantic's pages helps nobody.
os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")
# Its temporary server takes seconds to start, and on a busy login node longer than its 20.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
# A server that is away for some minutes is waited for (2, 4, 8 … 256 s), not only for one.
os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "8")
# Its server answers 500 while its database is away. Unless that is waited for too, the process that
# runs what the UI starts ends itself after half a minute, and takes its flow runs along.
os.environ.setdefault("PREFECT_CLIENT_RETRY_EXTRA_CODES", "500")
