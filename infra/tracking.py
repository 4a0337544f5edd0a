"""What runs report to MLflow: a tree of runs with params, metrics, datasets and artifacts.

Without a server everything goes to a SQLite file in the workspace. A server that cannot be
reached stops the work before it starts; one that goes away later does not stop it.

    tracking = Tracking(None, experiment="poc", workspace=workspace.root)
    with tracking.run("train", parent=flow_run, tags={"phase": "poc"}) as run:
        run.metrics({"loss": 0.31}, step=10)
"""

from __future__ import annotations

import atexit
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ccai_core.errors import ArtifactError
from infra import mlflow_store as store
from infra.outbox import Outbox


class Tracking:
    """An MLflow experiment that runs are reported to.

    Uses MLflow's client and explicit run ids, never its global "active run", so that threads and
    processes can report side by side.
    """

    def __init__(self, uri: str | None, experiment: str, workspace: Path) -> None:
        """Open or create `experiment` at `uri`, `$MLFLOW_TRACKING_URI` or in the workspace.

        Raises:
            ConfigError: the server does not answer, or the experiment cannot be used.
        """
        root = workspace.expanduser().resolve()
        local = f"sqlite:///{root / 'mlflow.db'}"
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or local
        """For programs: there may be a password in it. People are shown `shown_uri`."""
        self.shown_uri = store.shown(self.uri)
        artifacts = (root / "mlartifacts").as_uri() if self.uri == local else None
        self.client, self.experiment_id = store.open_experiment(self.uri, experiment, artifacts)
        self.outbox = Outbox(root / "mlflow-unsent.jsonl", store.is_refused)
        atexit.register(self.close)

    @contextmanager
    def run(
        self,
        name: str,
        parent: Run | str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Iterator[Run]:
        """Report what happens in the `with` block as one run, below `parent` (a run or its id).

        Its status is FINISHED, FAILED after an exception, KILLED after an interruption or a
        cancellation.
        """
        run = Run(self, name, parent, tags or {})
        try:
            yield run
        except Exception:
            run.end("FAILED")
            raise
        except BaseException:
            run.end("KILLED")
            raise
        else:
            run.end("FINISHED")

    def close(self, patience: float = 0.0) -> None:
        """Send what is still kept; write what cannot be sent to `mlflow-unsent.jsonl`.

        A server that is away has `patience` seconds to come back. Also runs when the program ends.
        """
        self.outbox.close(patience)


class Run:
    """One MLflow run. Every method returns even when the server is away."""

    def __init__(
        self, tracking: Tracking, name: str, parent: Run | str | None, tags: Mapping[str, str]
    ) -> None:
        """Create the run on the server, or as soon as the server answers."""
        self.name = name
        self.id: str | None = None
        """MLflow's id; None while the server has not been reached since the run began."""
        self._tracking = tracking
        started = _now_ms()

        def create() -> None:
            above = parent._known_id() if isinstance(parent, Run) else parent
            tree = {"mlflow.parentRunId": above} if above else {}
            made = tracking.client.create_run(
                tracking.experiment_id, started, {**store.clean_tags(tags), **tree}, name
            )
            self.id = made.info.run_id

        self._send("run", {"tags": dict(tags)}, create)

    @property
    def page(self) -> str:
        """Its address for people; empty when the store is no server, or was not reached yet."""
        server = self._tracking.shown_uri.rstrip("/")
        if self.id is None or not server.startswith(("http://", "https://")):
            return ""
        return f"{server}/#/experiments/{self._tracking.experiment_id}/runs/{self.id}"

    def params(self, values: Mapping[str, Any]) -> None:
        """Log settings, nested ones as `a.b.c`; a value over 6000 characters is cut."""
        from mlflow.entities import Param

        entities = [Param(key, text) for key, text in store.clean_params(values).items()]
        for batch in store.batches(entities, store.PARAMS_AT_ONCE):
            self._log("params", {"params": {each.key: each.value for each in batch}}, params=batch)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers of this moment."""
        now = _now_ms()
        self.metric_series({key: [(step or 0, value, now)] for key, value in values.items()})

    def metric_series(self, series: Mapping[str, Iterable[tuple[int, float, int]]]) -> None:
        """Log whole curves: for each name its (step, value, time in ms since 1970)."""
        from mlflow.entities import Metric

        entities = [
            Metric(store.clean_name(name), float(value), int(time_ms), int(step))
            for name, points in series.items()
            for step, value, time_ms in points
        ]
        for batch in store.batches(entities, store.METRICS_AT_ONCE):
            rows = [(each.key, each.step, each.value, each.timestamp) for each in batch]
            self._log("metrics", {"metrics": rows}, metrics=batch)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags, replacing those of the same name."""
        from mlflow.entities import RunTag

        entities = [RunTag(key, text) for key, text in store.clean_tags(values).items()]
        for batch in store.batches(entities, store.PARAMS_AT_ONCE):
            self._log("tags", {"tags": {each.key: each.value for each in batch}}, tags=batch)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file or directory to the run's artifacts, into `folder` there.

        Raises:
            ArtifactError: there is no such file.
        """
        if not path.exists():
            raise ArtifactError(f"{path} does not exist; nothing to log to run {self.name!r}.")
        source = str(path.resolve())

        def upload() -> None:
            self._tracking.client.log_artifact(self._known_id(), source, folder)

        self._send("artifact", {"path": source, "folder": folder}, upload)

    def dataset(
        self,
        name: str,
        digest: str,
        source: str,
        context: str,
        rows: int,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """Record a data set the run used, e.g. with context "training".

        MLflow keeps 36 characters of `digest`. `counts` says how many rows are of what.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = json.dumps({"num_rows": rows, **(counts or {})})
        data = Dataset(name, digest[: store.MAX_DIGEST], "local", source, profile=profile)
        entry = DatasetInput(data, [InputTag("mlflow.data.context", context)])
        details = {"dataset": name, "digest": digest, "source": source, "rows": rows}

        def log() -> None:
            self._tracking.client.log_inputs(self._known_id(), [entry])

        self._send("dataset", {**details, "context": context}, log)

    def model(self, name: str, path: Path, params: Mapping[str, Any]) -> None:
        """Record a model that the run made: where it lies and what it is, not a copy of it.

        Weights are gigabytes and stay in the workspace; the entry in MLflow's model list points
        there, with the run as its source.
        """
        from mlflow.entities import LoggedModelOutput

        about = {"path": str(path)}

        def record() -> None:
            client = self._tracking.client
            run_id = self._known_id()
            made = client.create_logged_model(
                self._tracking.experiment_id,
                store.clean_model_name(name),
                source_run_id=run_id,
                tags=about,
                params=store.clean_params(params),
                model_type="causal-lm",
            )
            client.finalize_logged_model(made.model_id, "READY")
            client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])

        self._send("model", {"model": name, **about}, record)

    def end(self, status: str) -> None:
        """Set the final status: FINISHED, FAILED or KILLED. `Tracking.run` does this."""
        ended = _now_ms()

        def terminate() -> None:
            self._tracking.client.set_terminated(self._known_id(), status, ended)

        self._send("end", {"status": status}, terminate)

    def _log(self, what: str, details: Mapping[str, Any], **batch: list[Any]) -> None:
        def log() -> None:
            self._tracking.client.log_batch(self._known_id(), **batch, synchronous=True)

        self._send(what, details, log)

    def _send(self, what: str, details: Mapping[str, Any], call: Callable[[], None]) -> None:
        self._tracking.outbox.send(what, {"run": self.name, "run_id": self.id, **details}, call)

    def _known_id(self) -> str:
        if self.id is None:
            # Calls are sent in order, so the server has refused to create the run.
            raise LookupError(f"run {self.name!r} was never created")
        return self.id


def _now_ms() -> int:
    return int(time.time() * 1000)
