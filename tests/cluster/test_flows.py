"""The flows on a real Slurm: the same commands as on a laptop, with `--cluster slurm-cpu`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ccai_core.training_data import read_pairs
from tests.cluster.slurm_lab import SlurmLab
from tests.flows.tiny_flow import ROOT, Command, alive, wait_for, write_settings

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    """Prefect's own server for tests; gives its API's address."""
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield SubprocessASGIServer().api_url


@pytest.fixture
def settings(on_lab: SlurmLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("CCAI_STORAGE", str(tmp_path))
    values = write_settings(tmp_path, cluster="slurm-cpu")
    del values["device"]
    return values


def run(flow: str, values: dict[str, Any], folder: Path, api: str) -> str:
    known = {"preference_data": set(values) - {"training", "evaluation"}}.get(flow, set(values))
    command = Command(flow, {k: values[k] for k in known}, folder / "command", api)
    assert command.ended(540) == 0, command.said()
    return command.said()


def job_records(workspace: Path) -> dict[str, dict[str, Any]]:
    files = (workspace / "jobs").glob("*/job.json")
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def set_newest_run(api: str, state: str) -> None:
    """Do what the Prefect UI does when somebody cancels a flow run."""
    import httpx

    (run,) = httpx.post(
        f"{api}/flow_runs/filter", json={"sort": "START_TIME_DESC", "limit": 1}
    ).json()
    asked = {"state": {"type": state, "name": state.capitalize(), "message": "by a test"}}
    httpx.post(f"{api}/flow_runs/{run['id']}/set_state", json=asked).raise_for_status()


def flow_log(api: str) -> str:
    """Return what the flow runs have logged to Prefect."""
    import httpx

    logs = httpx.post(f"{api}/logs/filter", json={"limit": 200, "sort": "TIMESTAMP_ASC"}).json()
    return "\n".join(line["message"] for line in logs)


def test_pairs_are_made_by_a_fleet_of_two_and_nothing_is_left(
    on_lab: SlurmLab, settings: dict[str, Any], tmp_path: Path, api: str
) -> None:
    said = run("preference_data", settings, tmp_path, api)
    assert "a fleet of 2 x transformers" in said
    (folder,) = (tmp_path / "ws" / "artifacts").glob("pairs-*")
    assert len(read_pairs(folder)) == settings["max_pairs"]
    calls = (tmp_path / "ws" / "journal" / "calls.jsonl").read_text()
    assert "http://127.0.0.1:" in calls
    assert "local:cpu" not in calls
    instances = [key for key in job_records(tmp_path / "ws") if key.startswith("fleet-")]
    assert len(instances) == 2
    on_lab.wait_for_no_jobs(90)


@pytest.mark.slow
def test_the_whole_proof_of_concept(
    on_lab: SlurmLab, settings: dict[str, Any], tmp_path: Path, api: str
) -> None:
    said = run("poc", settings, tmp_path, api)
    for part in ("Is it safer?", "report.html", "GPU hours"):
        assert part in said
    assert (tmp_path / "ws" / "report.html").exists()
    records = job_records(tmp_path / "ws")
    (training,) = [each for key, each in records.items() if key.startswith("training-")]
    # Generation had two instances; so had the baseline, the trained model and the judge.
    assert len([key for key in records if key.startswith("fleet-")]) >= 4
    log = flow_log(api)
    assert f"({training['job_id']}): running" in log
    assert "node" in log.partition(f"({training['job_id']}): running")[2][:80]
    assert "3 steps" in log or "training_log" in log or "training-" in log
    on_lab.wait_for_no_jobs(90)
    assert (
        on_lab.run("sacct", "-nX", "-j", training["job_id"], "-o", "state").strip() == "COMPLETED"
    )


@pytest.mark.slow
def test_cancelling_the_flow_run_cancels_its_fleet_on_slurm(
    on_lab: SlurmLab, settings: dict[str, Any], tmp_path: Path, api: str
) -> None:
    known = set(settings) - {"training", "evaluation"}
    values = {key: settings[key] for key in known} | {"max_pairs": 5000}
    first = Command("preference_data", values, tmp_path / "1", api)
    journal = tmp_path / "ws" / "journal" / "calls.jsonl"
    on_lab.wait_until(
        lambda: journal.exists() and journal.stat().st_size > 20_000, "some calls", 180
    )
    assert len(on_lab.jobs()) == 2
    set_newest_run(api, "CANCELLING")
    assert first.ended(90) == 130, first.said()
    on_lab.wait_for_no_jobs(30)
    # Nothing that was made is lost: the same command goes on from there.
    made = journal.read_bytes()
    settings["max_pairs"] = 12
    run("preference_data", settings, tmp_path / "2", api)
    assert journal.read_bytes().startswith(made)


@contextmanager
def serving(api: str, folder: Path) -> Iterator[None]:
    """Let `flows.serve` run what is started through the API."""
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.serve"],
            cwd=ROOT,
            env=os.environ | {"PREFECT_API_URL": api},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_cancelled_in_the_ui_a_deployments_fleet_is_gone_within_90_seconds(
    on_lab: SlurmLab,
    settings: dict[str, Any],
    tmp_path: Path,
    api: str,
    record_property: Any,
) -> None:
    import httpx

    known = set(settings) - {"training", "evaluation"}
    values = {key: settings[key] for key in known} | {"max_pairs": 5000}
    with serving(api, tmp_path):
        # The last one that is registered: the others are there by then.
        last = f"{api}/deployments/name/promote/default"
        wait_for(lambda: httpx.get(last).status_code == 200, 180, every=0.5)
        there = httpx.get(f"{api}/deployments/name/preference-data/default").json()["id"]
        started = httpx.post(
            f"{api}/deployments/{there}/create_flow_run",
            json={"parameters": {"config": values}, "state": {"type": "SCHEDULED"}},
        ).json()["id"]
        journal = tmp_path / "ws" / "journal" / "calls.jsonl"
        on_lab.wait_until(
            lambda: journal.exists() and journal.stat().st_size > 20_000, "some calls", 240
        )
        assert len(on_lab.jobs()) == 2
        assert on_lab.processes_of_jobs()
        # What the button in the UI sends.
        asked = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        cancelled = time.monotonic()
        httpx.post(f"{api}/flow_runs/{started}/set_state", json=asked).raise_for_status()

        def nothing_is_left() -> bool:
            state = httpx.get(f"{api}/flow_runs/{started}").json()["state_type"]
            left = on_lab.jobs() or on_lab.processes_of_jobs() or alive(tmp_path / "ws")
            return state == "CANCELLED" and not left

        wait_for(nothing_is_left, 90, every=0.5)
    seconds = time.monotonic() - cancelled
    record_property("seconds", seconds)
    print(f"0 jobs and 0 processes {seconds:.1f} s after cancelling")
