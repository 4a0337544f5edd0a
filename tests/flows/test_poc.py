"""The whole proof of concept on a tiny model: what it makes, what it reports, what it repeats."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ccai_core.errors import DataError, ModelError
from ccai_core.records import read_record
from ccai_core.training_data import read_pairs
from flows.cli import parse
from flows.config import EvaluationFlowConfig, PoCConfig, TrainingFlowConfig
from flows.poc import poc
from flows.training import training
from infra.workspace import Workspace
from tests.flows.conftest import Finished
from tests.flows.tiny_flow import TINY, Command, alive, attempts, wait_for

STAGES = {"generation", "training", "evaluation"}


def mlflow_runs(workspace: Path) -> list[Any]:
    """Return all runs of the workspace's store, the newest first."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{workspace.resolve() / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ccai")
    return list(client.search_runs([experiment.experiment_id]))


def flow_run(workspace: Path, back: int = 0) -> tuple[Any, dict[str, Any]]:
    """Return the MLflow run of the last flow run (or an earlier one) and its children by name."""
    runs = mlflow_runs(workspace)
    parent = [run for run in runs if run.data.tags["stage"] == "flow"][back]
    inside = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return parent, {run.info.run_name: run for run in inside}


def task_runs(flow_run_id: str) -> dict[str, Any]:
    """Return the Prefect task runs of a flow run by name, once all have ended."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    ours = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))

    def look() -> dict[str, Any] | None:
        with get_client(sync_client=True) as client:
            runs = client.read_task_runs(flow_run_filter=ours)
        over = runs and all(run.state and run.state.is_final() for run in runs)
        return {run.name: run for run in runs} if over else None

    # The server learns of task runs from events, a moment later.
    return dict(wait_for(look, 20, every=0.2))


def last_flow_run() -> Any:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        return client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread while the block runs; its failure fails the test."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - told below, in the test's own thread
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
    assert failed == []


# --- one run


def test_it_makes_a_report_a_model_and_balanced_pairs(finished: Finished) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    page = finished.made("report").read_text(encoding="utf-8")
    assert "CCAI proof of concept" in page
    assert "Mindfulness" in page

    rows = [pair.model_dump() for pair in read_pairs(finished.made("pairs"))]
    assert Counter(row["principle"] for row in rows) == {"mindfulness": 6, "honesty": 6}
    for row in rows:
        turns = {name: row[name] for name in ("prompt", "chosen", "rejected")}
        assert {name: [m["role"] for m in each] for name, each in turns.items()} == {
            "prompt": ["user"], "chosen": ["assistant"], "rejected": ["assistant"],
        }  # fmt: skip
        assert row["chosen"] != row["rejected"]

    before, after = (
        AutoModelForCausalLM.from_pretrained(str(path), dtype="float32").lm_head.weight
        for path in (finished.values["model"], finished.made("model"))
    )
    assert before.shape == after.shape
    assert not before.equal(after)
    assert AutoTokenizer.from_pretrained(str(finished.made("model"))).chat_template


def test_it_reports_a_tree_of_runs_to_mlflow(finished: Finished) -> None:
    flow, stages = flow_run(finished.workspace, back=-1)
    assert set(stages) == STAGES
    assert {run.info.status for run in (flow, *stages.values())} == {"FINISHED"}
    assert flow.data.params["training.epochs"] == "1"
    assert flow.data.tags["job.training"].endswith("attempt 1")
    assert [entry.dataset.name for entry in flow.inputs.dataset_inputs] == ["preference-pairs"]
    assert stages["generation"].data.metrics["pairs"] == 12
    assert stages["training"].data.params["learning_rate"] == "0.001"
    assert {"train/loss", "validation/margin"} <= stages["training"].data.metrics.keys()
    assert "capability.perplexity/trained" in stages["evaluation"].data.metrics
    stored = {path.name for path in (finished.workspace / "mlartifacts").rglob("*.*")}
    assert {"report.html", "funnel.json", "training.json", "evaluation.json"} <= stored


def test_prefect_shows_tasks_progress_and_tables(finished: Finished) -> None:
    from prefect.client.orchestration import get_client

    flow, _ = flow_run(finished.workspace, back=-1)
    tasks = task_runs(flow.data.tags["prefect.flow_run"])
    assert set(tasks) >= {"generate 12 pairs", "train tiny", "evaluate tiny-ccai"}
    assert {run.state_name for run in tasks.values()} == {"Completed"}
    assert {run.run_count for run in tasks.values()} == {1}
    with get_client(sync_client=True) as client:
        mine = flow.data.tags["prefect.flow_run"]
        shown = {a.key: a for a in client.read_artifacts() if str(a.flow_run_id) == mine and a.key}
    assert {"preference-pairs", "training", "evaluation", "funnel", "report"} <= shown.keys()
    (place,) = [json.loads(a.data) for key, a in shown.items() if key.startswith("job-training")]
    assert place[0]["state"].startswith(("running", "finished"))
    assert place[0]["log"].endswith(".out")
    assert shown["training"].type == "progress"
    assert shown["training"].data == 100
    rows = json.loads(shown["funnel"].data)
    assert rows[-1] == {"what": "Pairs", "candidates": 12}


def test_the_next_commands_are_commands(finished: Finished) -> None:
    browse, more, evaluate = finished.summary.next_commands
    store = shlex.quote(finished.summary.made["tracking"])
    assert browse == f"mlflow ui --backend-store-uri {store}"
    assert parse(PoCConfig, "", "", shlex.split(more)[3:])[0] == finished.config.model_copy(
        update={"max_pairs": 24}
    )
    harder = parse(EvaluationFlowConfig, "", "", shlex.split(evaluate)[3:])[0]
    assert Path(harder.trained) == finished.made("model")
    assert harder.pairs == finished.made("pairs")
    assert (harder.model, harder.evaluation) == (finished.config.model, finished.config.evaluation)
    assert harder.prompts == ("ailuminate-demo",)
    page = finished.made("report").read_text(encoding="utf-8")
    assert "python -m flows.poc --workspace" in page


def test_a_jobs_log_is_for_people(finished: Finished) -> None:
    logs = list((finished.workspace / "jobs").glob("*/attempt-1/*_log.*"))
    assert len(logs) == 6
    for log in logs:
        text = log.read_text()
        assert "Loading weights" not in text
        assert "it/s]" not in text
        assert "Warning" not in text


# --- again


def state_of(workspace: Path) -> dict[str, int]:
    """Return the sizes of journals and the times of artifacts: what any repeated work changes."""
    files = [*(workspace / "journal").iterdir(), *(workspace / "artifacts").rglob("*")]
    return {str(f): f.stat().st_mtime_ns for f in files if f.is_file() and f.suffix != ".lock"}


def test_the_same_command_repeats_nothing(finished: Finished) -> None:
    before, jobs = state_of(finished.workspace), attempts(finished.workspace)
    again = poc(finished.config)
    assert again.made == finished.summary.made
    assert again.findings == finished.summary.findings
    assert state_of(finished.workspace) == before
    assert attempts(finished.workspace) == jobs
    _, stages = flow_run(finished.workspace)
    assert stages == {}


def test_a_damaged_model_is_made_again_even_if_its_job_is_killed(
    finished: Finished, caplog: pytest.LogCaptureFixture
) -> None:
    weights = finished.made("model") / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    jobs = attempts(finished.workspace)

    def kill() -> None:
        for process in wait_for(lambda: alive(finished.workspace, "training")):
            process.kill()

    config = TrainingFlowConfig.model_validate(
        {"pairs": finished.made("pairs")}
        | {k: finished.values[k] for k in ("training", "model", "workspace", "device")}
    )
    with meanwhile(kill), caplog.at_level(logging.WARNING, "infra"):
        training(config)
    assert "is not as it was written; it is made again" in caplog.text
    assert weights.read_bytes() == good
    # Also where the pairs were named by their path.
    record = read_record(finished.artifact("training"))
    assert record
    assert record.parents == (finished.artifact("pairs").name,)
    assert attempts(finished.workspace) == {**jobs, "training": jobs["training"] + 2}
    tasks = task_runs(str(last_flow_run().id))
    assert {name: (r.run_count, r.state_name) for name, r in tasks.items()} == {
        f"find {finished.values['model']}": (1, "Completed"),
        "train tiny": (2, "Completed"),
    }


def changed(finished: Finished) -> PoCConfig:
    """Return the settings with one of training changed."""
    return PoCConfig.model_validate(
        {**finished.values, "training": {**TINY["training"], "learning_rate": 2e-3}}
    )


@pytest.mark.parametrize("sign", ["attempt-*", "attempt-*/*_log.out"])
def test_ctrl_c_ends_the_job_and_says_so_everywhere(finished: Finished, sign: str) -> None:
    jobs = attempts(finished.workspace)
    known = set((finished.workspace / "jobs").glob(f"training-*/{sign}"))

    def interrupt() -> None:
        wait_for(lambda: set((finished.workspace / "jobs").glob(f"training-*/{sign}")) - known)
        os.kill(os.getpid(), signal.SIGINT)

    # A runner in the background of a script (`&`) is started with Ctrl-C switched off.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with meanwhile(interrupt), pytest.raises(KeyboardInterrupt):
            poc(changed(finished))
    finally:
        signal.signal(signal.SIGINT, before)
    # One that was just being started looks for its lease first, and ends as it is gone.
    wait_for(lambda: not alive(finished.workspace), 0.1 if "log" in sign else 90)
    flow, stages = flow_run(finished.workspace)
    assert (flow.info.status, stages["training"].info.status) == ("KILLED", "KILLED")
    assert set(stages) == {"training"}, "the pairs are there already"
    assert attempts(finished.workspace) == {**jobs, "training": jobs["training"] + 1}
    assert last_flow_run().state_name == "Crashed"


# --- what only the user can mend


def test_an_error_of_the_users_is_not_tried_again(finished: Finished) -> None:
    jobs = attempts(finished.workspace)
    base = {"pairs": finished.made("pairs"), "workspace": finished.workspace, "device": "cpu"}
    with pytest.raises(ModelError, match="no such folder"):
        training(TrainingFlowConfig.model_validate({**base, "model": "./none"}))
    tasks = task_runs(str(last_flow_run().id))
    assert {name: (r.run_count, r.state_name) for name, r in tasks.items()} == {
        "find ./none": (1, "Failed")
    }
    config = {**base, "model": finished.values["model"]}
    config["training"] = {"max_length": 16, "over_length": "error"}
    with pytest.raises(DataError, match="16 tokens"):
        training(TrainingFlowConfig.model_validate(config))
    tasks = task_runs(str(last_flow_run().id))
    assert (tasks["train tiny"].run_count, tasks["train tiny"].state_name) == (1, "Failed")
    assert attempts(finished.workspace) == {**jobs, "training": jobs["training"] + 1}


def test_a_second_process_on_the_workspace_is_refused_in_one_paragraph(
    finished: Finished, server: str, tmp_path: Path
) -> None:
    with Workspace(finished.workspace).lock():
        second = Command("poc", finished.values, tmp_path, server)
        assert second.ended() == 2, second.said()
    said = second.err.read_text()
    assert f"{finished.workspace} is in use by process {os.getpid()} on " in said
    assert "\n\n" not in said.strip()
    for leak in ("Traceback", "INFO", "ERROR", "Encountered"):
        assert leak not in second.said()
