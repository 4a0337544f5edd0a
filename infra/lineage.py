"""Which MLflow run made an artifact, and which command that run was part of.

    origin = find_origin("sqlite:///runs/poc/mlflow.db", "evaluation-45ab8ba3896623a9")
    origin.run_id, origin.command

Only reads: a store that is not there is not made. Artifacts of runs that did not say which artifact
they make (older ones) have no origin.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from ccai_core.errors import ConfigError
from ccai_core.records import sha256_of
from infra import mlflow_store as store

_MOST_RUNS = 50


class Origin(NamedTuple):
    """The run that made an artifact."""

    run_id: str
    experiment_id: str
    command: str
    """What was typed; empty where the flow's run does not say."""


def store_of(folder: Path, uri: str | None = None) -> str | None:
    """Return where the runs of a workspace are: named, $MLFLOW_TRACKING_URI, or the workspace's.

    Args:
        folder: a workspace, or an artifact's folder in it, `WORKSPACE/artifacts/NAME`.
        uri: named by the user.
    """
    named = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if named:
        return named
    places = (folder.resolve(), *folder.resolve().parents[:2])
    databases = (place / "mlflow.db" for place in places)
    found = next((database for database in databases if database.is_file()), None)
    return f"sqlite:///{found}" if found else None


def content_name(kind: str, file: Path) -> str:
    """Return what a run calls a file that is no artifact: by its kind and its content."""
    return f"{kind}-{sha256_of(file)[:16]}"


def find_origin(uri: str, artifact: str) -> Origin | None:
    """Return the newest run that made `artifact`, a finished one before others.

    Raises:
        ConfigError: the store does not answer, or cannot be searched.
    """
    if not re.fullmatch(r"[\w.-]+", artifact):
        return None  # No artifact of ours is called so, and MLflow reads it as part of a query.
    client = store.open_client(uri)
    try:
        experiments = [each.experiment_id for each in client.search_experiments()]
        found = client.search_runs(
            experiments,
            filter_string=f"tags.artifact = '{artifact}'",
            order_by=["attributes.start_time DESC"],
            max_results=_MOST_RUNS,
        )
        if not found:
            return None
        run = next((run for run in found if run.info.status == "FINISHED"), found[0])
        return Origin(run.info.run_id, run.info.experiment_id, _command(client, run))
    except Exception as error:
        raise ConfigError(
            f"MLflow at {store.shown(uri)} cannot be searched for the run of {artifact}: "
            f"{error!s:.500}. Mend it, or name another with --tracking-uri."
        ) from error


def _command(client: Any, run: Any) -> str:
    """Return the command of a run, or of the nearest run above it that has one."""
    seen: set[str] = set()
    while not (command := run.data.tags.get("command", "")):
        above = run.data.tags.get("mlflow.parentRunId")
        if above is None or above in seen:
            return ""
        seen.add(above)
        run = client.get_run(above)
    return str(command)
