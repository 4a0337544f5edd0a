"""MLflow's ways: how to reach it quietly and quickly, and what it takes as names and values.

MLflow is imported inside the functions: it takes seconds, and most commands never need it.

    client, experiment_id = open_experiment("sqlite:///runs/mlflow.db", "poc", None)
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ccai_core.errors import ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient

E = TypeVar("E")

PARAMS_AT_ONCE = 100
METRICS_AT_ONCE = 1000
MAX_DIGEST = 36
_MAX_PARAM, _MAX_TAG, _MAX_NAME = 6000, 5000, 250

_PROBE_S = 5.0
_REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}


def open_experiment(uri: str, name: str, artifacts: str | None) -> tuple[MlflowClient, str]:
    """Return a client of the store at `uri` and the id of the experiment, made if it is new.

    Args:
        uri: Tracking URI: http(s), sqlite, or any other MLflow knows.
        name: The experiment's name.
        artifacts: Where a new experiment keeps artifacts; None: as the server is set up.

    Raises:
        ConfigError: the store does not answer or cannot be used, or the experiment is deleted.
    """
    client = open_client(uri)
    try:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            return client, _create_experiment(client, name, artifacts)
    except Exception as error:
        raise ConfigError(
            f"MLflow at {shown(uri)} cannot be used: {shown(str(error)):.500}. Mend it, set "
            "another MLFLOW_TRACKING_URI, or unset it to keep runs in the workspace."
        ) from error
    if experiment.lifecycle_stage != "active":
        raise ConfigError(
            f"The MLflow experiment {name!r} at {shown(uri)} was deleted. Bring it back with "
            f"`mlflow experiments restore -x {experiment.experiment_id}`, or choose another name."
        )
    return client, str(experiment.experiment_id)


def open_client(uri: str) -> MlflowClient:
    """Return a client of the store at `uri`, which answers.

    Raises:
        ConfigError: it does not answer or cannot be opened.
    """
    _probe(uri)
    return _client(uri)


def is_refused(error: Exception) -> bool:
    """Tell an answer that stays the same from a store that is away for a while."""
    if isinstance(error, FileNotFoundError):
        return True
    if isinstance(error, OSError):  # network errors of `requests` among them
        return False
    code = getattr(error, "error_code", None)
    return code in _REFUSALS if code else isinstance(error, LookupError | TypeError | ValueError)


def clean_params(values: Mapping[str, Any]) -> dict[str, str]:
    """Flatten nested mappings to `a.b.c` and make names and values acceptable."""
    return {clean_name(key): _cut(text, _MAX_PARAM) for key, text in _leaves(values, "")}


def clean_tags(values: Mapping[str, str]) -> dict[str, str]:
    """Make tag names and values acceptable."""
    return {clean_name(key): _cut(str(text), _MAX_TAG) for key, text in values.items()}


def clean_name(name: str) -> str:
    """Replace the characters that MLflow does not take in a name."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:_MAX_NAME]


def clean_model_name(name: str) -> str:
    """Replace what MLflow does not take in a model's name: it is stricter there than elsewhere."""
    return re.sub(r"[/:.%\"']", "-", clean_name(name))


def batches(items: Sequence[E], size: int) -> Iterator[list[E]]:
    """Cut a sequence into lists of at most `size`."""
    return (list(items[at : at + size]) for at in range(0, len(items), size))


def shown(uri: str) -> str:
    """Return a URI, or a text with URIs, without the passwords that may be in them."""
    return re.sub(r"//[^/@\s]*@", "//", uri)


def _probe(uri: str) -> None:
    """Ask the server for anything at all; MLflow itself would try for minutes.

    Any answer will do, a refusal too: then MLflow gives the better message.
    """
    if urlsplit(uri).scheme not in {"http", "https"}:
        return
    request = urllib.request.Request(shown(uri).rstrip("/") + "/health")  # noqa: S310  # http(s)
    try:
        with urllib.request.urlopen(request, timeout=_PROBE_S):  # noqa: S310
            return
    except urllib.error.HTTPError as error:
        if error.code < 500:
            return
        problem = f"answers {error.code}"
    except (OSError, http.client.HTTPException) as error:
        problem = f"does not answer ({getattr(error, 'reason', error)})"
    raise ConfigError(
        f"The MLflow server at {shown(uri)} {problem}. Start it, set another MLFLOW_TRACKING_URI, "
        "or unset it to keep runs in the workspace."
    )


def _client(uri: str) -> MlflowClient:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    # Instead of MLflow's four minutes of retries: the outbox keeps what fails, and work goes on.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return MlflowClient(tracking_uri=uri)
    except Exception as error:
        raise ConfigError(f"MLflow cannot open {shown(uri)}: {shown(str(error)):.500}") from error


def _create_experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.create_experiment(name, artifact_location=artifacts))
    except MlflowException as error:
        made = client.get_experiment_by_name(name)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or made is None:
            raise
        # Another process has made it since we looked.
        return str(made.experiment_id)


def _leaves(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{name}.")
        elif isinstance(value, Mapping | list | tuple | bool | int | float | None):
            yield name, json.dumps(value, default=str)
        else:
            yield name, str(value)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
