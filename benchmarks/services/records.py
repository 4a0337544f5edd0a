"""What Prefect and MLflow know of one flow run, and what one record lacks that another has.

whole = record_of(api, "http://127.0.0.1:5000", run_id, workspace)
print(differences(whole, record_of(api, mlflow, other_id, other_workspace)))
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
"""The states that a flow run ends in."""

# Of time and machine: their names and steps are compared, not their values.
_MEASURED = re.compile(r"second|time|memory|rate|speed|throughput|runtime|_per_|/s$|hours|mfu")
_KINDS = ("MLflow runs", "params", "metrics", "tags", "datasets", "MLflow artifacts", "models")
# Of this run alone.
_OWN_TAGS = (
    "prefect.flow_run", "mlflow.parentRunId", "mlflow.runName", "mlflow.note.content", "command",
    "settings",
)  # fmt: skip
# Curves of a step that runs, a point every so many seconds: that they are there is compared.
_SAMPLED = re.compile(r"_so_far$|calls_asked|_per_second$|in_flight|servers$|failed_attempts")


class Api:
    """The calls to Prefect that the UI makes too."""

    def __init__(self, prefect: str) -> None:
        self._api = f"{prefect}/api"

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Call one; a body is posted unless the method is named."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310  # our own server
            self._api + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            text = answer.read()
            return json.loads(text) if text else None

    def patch(self, path: str, body: Any) -> None:
        """Change something."""
        self.ask(path, body, "PATCH")

    def everything(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return all pages of a filter's answer."""
        found: list[dict[str, Any]] = []
        while page := self.ask(path, {**body, "limit": 200, "offset": len(found)}):
            found += page
        return found

    def wait_for_deployment(self, flow: str, name: str, seconds: float = 240) -> str:
        """Return a deployment's id once `flows.serve` has registered the last of them."""
        until = time.monotonic() + seconds
        while True:
            try:
                self.ask("/deployments/name/promote/default")
                return str(self.ask(f"/deployments/name/{flow}/{name}")["id"])
            except urllib.error.HTTPError as error:
                if error.code != 404 or time.monotonic() > until:
                    raise
            time.sleep(1)

    def start(self, deployment: str, parameters: dict[str, Any]) -> str:
        """Start a flow run; returns its id."""
        path = f"/deployments/{deployment}/create_flow_run"
        made = self.ask(path, {"parameters": parameters, "state": {"type": "SCHEDULED"}})
        return str(made["id"])

    def state(self, run: str) -> str:
        """Return the type of a flow run's state; nothing while the server is away."""
        try:
            return str(self.ask(f"/flow_runs/{run}")["state_type"])
        except OSError:
            return ""


@dataclass
class Record:
    """All that is known of one flow run; each thing as text, counted."""

    state: str
    things: dict[str, Counter[str]] = field(default_factory=dict)


def record_of(api: Api, mlflow: str, run: str, workspace: Path) -> Record:
    """Collect what both servers have."""
    clean = _Cleaner(workspace)
    record = Record(str(api.ask(f"/flow_runs/{run}")["state_type"]))
    ours = {"flow_runs": {"id": {"any_": [run]}}}
    tasks = api.everything("/task_runs/filter", ours)
    record.things["tasks"] = Counter(
        f"{_plain(each['name'])} {each['state_type']}" for each in tasks
    )
    artifacts = api.everything("/artifacts/filter", ours)
    record.things["Prefect artifacts"] = Counter(
        {f"{each['type']} {each['key']}": 1 for each in artifacts}
    )
    lines = api.everything("/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})
    record.things["log lines"] = Counter({clean(each["message"]): 1 for each in lines})
    record.things |= _mlflow(mlflow, run, clean)
    return record


def differences(whole: Record, other: Record) -> list[str]:
    """Return what `other` lacks or has otherwise, a line a kind."""
    found = []
    for kind, things in whole.things.items():
        lacks = things - other.things.get(kind, Counter())
        if lacks:
            some = ", ".join(text[:120] for text in sorted(lacks)[:4])
            found.append(f"{lacks.total()} of {things.total()} {kind}: {some}")
    return found


class _Cleaner:
    """Takes out of a text what is of one run alone: its folder, its numbers."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = str(workspace)

    def __call__(self, text: str) -> str:
        return _plain(text.replace(self._workspace, "WORKSPACE"))

    def value(self, text: str) -> str:
        """As above, but with the numbers."""
        return text.replace(self._workspace, "WORKSPACE")


def _plain(text: str) -> str:
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|'[a-z]+-[a-z]+'", "ID", text)
    text = re.sub(r"\b[0-9a-f]{12,64}\b|(?<=-)[0-9a-f]{3}\b", "ID", text)
    return re.sub(r"\d+([.,:]\d+)*", "#", text)


def _mlflow(uri: str, flow_run: str, clean: _Cleaner) -> dict[str, Counter[str]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    top = client.search_runs(experiments, f"tags.`prefect.flow_run` = '{flow_run}'")
    things: dict[str, Counter[str]] = {
        kind: Counter()
        for kind in (
            "MLflow runs",
            "params",
            "metrics",
            "tags",
            "datasets",
            "MLflow artifacts",
            "models",
        )
    }
    waiting = [(run, "flow") for run in top]
    while waiting:
        run, name = waiting.pop()
        _add(things, client, run, name, clean)
        below = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        waiting += [
            (each, f"{name}/{_plain(each.info.run_name)}")
            for each in client.search_runs(experiments, below)
        ]
    return things


def _add(
    things: dict[str, Counter[str]], client: Any, run: Any, name: str, clean: _Cleaner
) -> None:
    things["MLflow runs"][f"{name} {run.info.status}"] += 1
    for key, value in run.data.params.items():
        things["params"][f"{name} {key}={clean.value(value)}"] += 1
    for key, value in run.data.tags.items():
        shown = "" if key in _OWN_TAGS or key.startswith("job.") else clean.value(value)
        things["tags"][f"{name} {key}={shown}"] += 1
    for key in run.data.metrics:
        if _SAMPLED.search(key):
            things["metrics"][f"{name} {key}"] += 1
            continue
        for each in client.get_metric_history(run.info.run_id, key):
            value = "" if _MEASURED.search(key) else f"{each.value:.6g}"
            things["metrics"][f"{name} {key}[{each.step}]={value}"] += 1
    for each in run.inputs.dataset_inputs:
        things["datasets"][f"{name} {each.dataset.name} {each.dataset.digest}"] += 1
    for each in run.outputs.model_outputs if run.outputs else ():
        made = client.get_logged_model(each.model_id)
        things["models"][f"{name} {made.name} {made.status}"] += 1
    folders = [""]
    while folders:
        for each in client.list_artifacts(run.info.run_id, folders.pop()):
            if each.is_dir:
                folders.append(each.path)
            else:
                things["MLflow artifacts"][f"{name} {each.path}"] += 1
