from __future__ import annotations

import functools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccai_core.errors import ArtifactError, ConfigError
from infra import outbox
from infra.mlflow_store import clean_name, clean_params, shown
from infra.tracking import Run, Tracking


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


UVICORN = [sys.executable, "-m", "uvicorn", "mlflow.server.fastapi_app:app"]


class Server:
    """The application that `mlflow server` runs, in one process, on a database that exists."""

    def __init__(self, database: Path, artifacts: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.environment = os.environ | {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{database}",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(artifacts),
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [*UVICORN, "--port", str(self.port), "--log-level", "error"],
            env=self.environment,
        )

    def wait(self) -> None:
        assert self.process is not None
        until = time.monotonic() + 240
        while not self._answers():
            assert time.monotonic() < until
            assert self.process.poll() is None
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                return True
        except OSError:
            return False


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One workspace for all tests: making MLflow's database takes seconds."""
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def server(workspace: Path) -> Iterator[Server]:
    server = Server(workspace / "mlflow.db", workspace / "served")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def tracking(workspace: Path, server: Server) -> Tracking:
    # The server is asked for so that it starts while the database is made here.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Tracking(None, "poc", workspace)


def stored(tracking: Tracking, run: Run) -> Any:
    assert run.id is not None
    return tracking.client.get_run(run.id)


# --- what is reported


def test_everything_a_run_reports_is_stored(tracking: Tracking, tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("# Report")
    with tracking.run("train", tags={"phase": "poc"}) as run:
        run.params(
            {"model": {"name": "m", "lora": {"rank": 8}}, "texts": ["a"], "long": "x" * 7000}
        )
        run.metrics({"loss": 0.5, "accuracy/eval": 0.25}, step=3)
        run.metric_series({"curve": [(step, step / 2, 1000 + step) for step in range(1500)]})
        run.artifact(tmp_path / "report.md", "reports")
        run.dataset(
            "pairs", "ab" * 32, "artifacts/pairs", "training", rows=12, counts={"train": 11}
        )
        run.tags({"answer": "42"})
        run.model("me/Tiny-1.5B-ccai", tmp_path / "model", {"revision": "ab12"})
    found = stored(tracking, run)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "train"
    assert found.data.tags["phase"] == "poc"
    assert found.data.tags["answer"] == "42"
    params = found.data.params
    assert (params["model.name"], params["model.lora.rank"]) == ("m", "8")
    assert len(params["long"]) == 6000
    assert found.data.metrics["accuracy/eval"] == 0.25
    history = tracking.client.get_metric_history(run.id, "curve")
    assert len(history) == 1500
    assert (history[7].step, history[7].value, history[7].timestamp) == (7, 3.5, 1007)
    (dataset,) = found.inputs.dataset_inputs
    (model,) = tracking.client.search_logged_models([tracking.experiment_id])
    assert (model.name, model.source_run_id) == ("me-Tiny-1-5B-ccai", run.id)
    assert model.params == {"revision": "ab12"}
    assert model.tags["path"] == str(tmp_path / "model")
    assert found.outputs.model_outputs[0].model_id == model.model_id
    assert (dataset.dataset.name, dataset.dataset.digest) == ("pairs", "ab" * 18)
    assert json.loads(dataset.dataset.profile) == {"num_rows": 12, "train": 11}
    assert dataset.tags[0].value == "training"


def test_artifacts_lie_in_the_workspace(
    tracking: Tracking, workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "loss.svg").write_text("<svg/>")
    with tracking.run("plots") as run:
        run.artifact(tmp_path / "plots")
    assert list((workspace / "mlartifacts").rglob("loss.svg"))
    with pytest.raises(ArtifactError, match="does not exist"):
        run.artifact(tmp_path / "nothing")


def test_more_params_than_one_call_takes(tracking: Tracking) -> None:
    with tracking.run("many") as run:
        run.params({f"p{number}": number for number in range(250)})
    assert len(stored(tracking, run).data.params) == 250


def test_runs_form_a_tree_by_object_or_id(tracking: Tracking) -> None:
    with (
        tracking.run("flow") as flow,
        tracking.run("train", parent=flow) as train,
        tracking.run("epoch", parent=train.id) as epoch,
    ):
        pass
    assert stored(tracking, train).data.tags["mlflow.parentRunId"] == flow.id
    assert stored(tracking, epoch).data.tags["mlflow.parentRunId"] == train.id
    assert "mlflow.parentRunId" not in stored(tracking, flow).data.tags


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_the_status_is_true(tracking: Tracking, error: type[BaseException], status: str) -> None:
    with pytest.raises(error), tracking.run("broken") as run:
        raise error
    assert stored(tracking, run).info.status == status


def test_threads_report_to_their_own_runs(tracking: Tracking) -> None:
    runs: dict[int, Run] = {}

    def report(number: int) -> None:
        with tracking.run(f"thread {number}") as run:
            for step in range(5):
                run.metrics({"value": number * 100 + step}, step=step)
            runs[number] = run

    threads = [threading.Thread(target=report, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, run in runs.items():
        assert stored(tracking, run).data.metrics["value"] == number * 100 + 4


def test_it_is_quiet_and_sends_no_telemetry(tracking: Tracking) -> None:
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["DO_NOT_TRACK"] == "true"
    assert not logging.getLogger("alembic.runtime.migration").isEnabledFor(logging.INFO)


def test_mlflow_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, infra.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_and_values_are_made_acceptable() -> None:
    assert clean_name("lm-eval[arc](25)") == "lm-eval_arc__25_"
    assert clean_params({"a": {}, "b": None, "c": True, "d": Path("x/y"), "e": [1, "z"]}) == {
        "a": "{}",
        "b": "null",
        "c": "true",
        "d": "x/y",
        "e": '[1, "z"]',
    }
    assert shown("https://me:secret@host:5000/x") == "https://host:5000/x"


# --- a server that is not there


def test_a_server_that_does_not_listen_stops_the_work_at_the_start(tmp_path: Path) -> None:
    uri = f"http://user:secret@127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:\d+ does not answer .*Start it") as caught:
        Tracking(uri, "poc", tmp_path)
    assert time.monotonic() - began < 5.5
    assert "secret" not in str(caught.value)


def test_a_server_that_hangs_stops_the_work_after_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.mlflow_store._PROBE_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ConfigError, match="does not answer"):
            Tracking(f"http://127.0.0.1:{silent.getsockname()[1]}", "poc", tmp_path)


def test_a_store_mlflow_does_not_know_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MLflow"):
        Tracking("carrier-pigeon://loft", "poc", tmp_path)


def test_a_deleted_experiment_is_said(tracking: Tracking, workspace: Path) -> None:
    gone = Tracking(tracking.uri, "gone", workspace)
    gone.client.delete_experiment(gone.experiment_id)
    with pytest.raises(ConfigError, match=r"'gone' .* was deleted\..*restore -x"):
        Tracking(tracking.uri, "gone", workspace)


def test_a_server_that_goes_away_does_not_stop_the_run(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(outbox, "_REST_S", 0.5)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    (tmp_path / "report.md").write_text("# Report")
    server.wait()
    tracking = Tracking(None, "remote", tmp_path)
    with tracking.run("flow") as flow:
        flow.metrics({"loss": 3.0}, step=1)
        server.stop()
        flow.metrics({"loss": 2.0}, step=2)
        with tracking.run("train", parent=flow) as train:
            assert train.id is None
            train.params({"beta": 0.1})
            train.artifact(tmp_path / "report.md")
        assert caplog.text.count("does not answer") == 1
        server.start()
        server.wait()
        flow.metrics({"loss": 1.0}, step=3)
    history = tracking.client.get_metric_history(flow.id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    found = stored(tracking, train)
    assert found.info.status == "FINISHED"
    assert found.info.end_time - found.info.start_time < 4000, "times are those of the events"
    assert found.data.params == {"beta": "0.1"}
    assert found.data.tags["mlflow.parentRunId"] == flow.id
    assert [each.path for each in tracking.client.list_artifacts(train.id)] == ["report.md"]

    server.stop()
    with tracking.run("unheard") as unheard:
        unheard.metrics({"loss": 9.0})
    tracking.close()
    assert "could not be sent" in caplog.text
    lines = [
        json.loads(line) for line in (tmp_path / "mlflow-unsent.jsonl").read_text().split("\n")[:-1]
    ]
    assert [line["what"] for line in lines] == ["run", "metrics", "end"]
    assert lines[1]["run"] == "unheard"
    assert lines[1]["metrics"][0][:3] == ["loss", 0, 9.0]


# --- the outbox alone


def test_a_refused_call_does_not_block_the_others(
    tracking: Tracking, workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tracking.run("twice") as run:
        run.params({"beta": 0.1})
        run.params({"beta": 0.2})  # MLflow refuses to change a param
        run.metrics({"loss": 1.0})
    assert stored(tracking, run).info.status == "FINISHED"
    assert stored(tracking, run).data.metrics == {"loss": 1.0}
    assert "Tracking refuses params" in caplog.text
    assert '"beta": "0.2"' in (workspace / "mlflow-unsent.jsonl").read_text()


def test_a_server_that_is_away_is_left_alone_for_a_while(tmp_path: Path) -> None:
    tried: list[str] = []

    def fail() -> None:
        tried.append("x")
        raise ConnectionError("away")

    box = outbox.Outbox(tmp_path / "unsent", lambda error: False)
    for _ in range(10):
        box.send("metrics", {}, fail)
    assert len(tried) == 1


def test_one_call_the_server_chokes_on_does_not_take_the_rest_along(tmp_path: Path) -> None:
    sent: list[int] = []

    def choke() -> None:
        raise ConnectionError("too large for me")

    box = outbox.Outbox(tmp_path / "unsent", lambda error: False)
    box.send("artifact", {"path": "big"}, choke)
    for number in range(3):
        box.send("metrics", {}, functools.partial(sent.append, number))
    box.close()
    assert sent == [0, 1, 2]
    assert [
        json.loads(line)["path"] for line in (tmp_path / "unsent").read_text().splitlines()
    ] == ["big"]


def test_ctrl_c_in_the_middle_of_a_call_lets_it_end_and_keeps_the_order(tmp_path: Path) -> None:
    box = outbox.Outbox(tmp_path / "unsent.jsonl", lambda error: False)
    made: list[str] = []

    def slow() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        made.append("begun before")

    # A runner in the background of a script (`&`) is started with Ctrl-C switched off.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            box.send("slow", {}, slow)
        assert made == [], "nobody waits for it"
        box.send("end", {}, lambda: made.append("end"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert made == ["begun before", "end"]
