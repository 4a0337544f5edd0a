"""Which MLflow run made an artifact, and which command that run was part of.

    origin = find_origin("sqlite:///runs/poc/mlflow.db", "evaluation-45ab8ba3896623a9")
    origin.run_id, origin.command

Only reads: a store that is not there is not made. Artifacts of runs that did not say which artifact
they make (older ones) have no origin.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
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
    commit: str = ""
    """Of the code; with "+changes" where files differed from it."""
    settings: Mapping[str, str] = {}
    """The flow's settings as MLflow keeps them, nested ones as `a.b.c`."""


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
        flow = _flow_of(client, run)
    except Exception as error:
        raise ConfigError(
            f"MLflow at {store.shown(uri)} cannot be searched for the run of {artifact}: "
            f"{error!s:.500}. Mend it, or name another with --tracking-uri."
        ) from error
    return Origin(
        run.info.run_id,
        run.info.experiment_id,
        str(flow.data.tags.get("command", "")),
        str(flow.data.tags.get("git.commit", "")),
        dict(flow.data.params),
    )


def artifacts_of(uri: str, run_id: str) -> tuple[str, ...]:
    """Return the artifacts that a run or one of the runs below it made, the last one first.

    Raises:
        ConfigError: the store does not answer.
    """
    client = store.open_client(uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    below = client.search_runs(
        experiments,
        filter_string=f"tags.mlflow.parentRunId = '{run_id}'",
        order_by=["attributes.start_time DESC"],
    )
    own = client.search_runs(experiments, filter_string=f"attributes.run_id = '{run_id}'")
    made = (run.data.tags.get("artifact", "") for run in (*below, *own))
    return tuple(dict.fromkeys(filter(None, made)))


def _flow_of(client: Any, run: Any) -> Any:
    """Return the run, or the nearest run above it, that says its command; else the topmost."""
    seen: set[str] = set()
    while not run.data.tags.get("command", ""):
        above = run.data.tags.get("mlflow.parentRunId")
        if above is None or above in seen:
            return run
        seen.add(above)
        run = client.get_run(above)
    return run
