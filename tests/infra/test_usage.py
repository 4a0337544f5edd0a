"""What runs in a workspace, on a terminal and for Prometheus, with real jobs of this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from infra.cluster import ClusterConfig
from infra.fleet_plan import FleetFiles, InstanceView, this_driver
from infra.jobs import Resources, submit
from infra.metrics import Workspaces
from infra.top import main
from infra.usage import look, workspaces
from tests.infra import job_functions as functions

ROOT = Path(__file__).parents[2]
CLUSTER = ClusterConfig(name="test", kind="local", lease_seconds=20, limits={"max_jobs": 4})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two workspaces: in one a job is over and one runs on two GPUs, in the other nothing is."""
    above = tmp_path_factory.mktemp("runs")
    jobs = above / "poc" / "jobs"
    (above / "idle" / "jobs").mkdir(parents=True)
    submit(
        functions.add, 1, 2, resources=Resources(), cluster=CLUSTER, key="add-1", folder=jobs
    ).result()
    job = submit(
        functions.note_and_wait, above / "notes", above / "gate", resources=Resources(gpus=2),
        cluster=CLUSTER, key="training-1", folder=jobs, role="train", owner="me",
    )  # fmt: skip
    artifact = above / "poc" / "artifacts" / "training-1"
    artifact.mkdir(parents=True)
    (artifact / "progress.json").write_text('{"done": 1, "total": 4}')
    files = FleetFiles(above / "poc" / "fleets" / "judge")
    views = (InstanceView(name="0", state="ready"), InstanceView(name="1", state="queued"))
    files.write_state(this_driver(2, views))
    deadline = time.monotonic() + 60
    while not (above / "notes").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    try:
        yield above
    finally:
        job.cancel()


def test_jobs_are_seen_as_they_are_and_gpus_are_counted(runs):
    idle, poc = (look(each) for each in workspaces([runs]))
    assert (idle.workspace.name, idle.jobs) == ("idle", ())
    assert {job.key: job.state for job in poc.jobs} == {"add-1": "over", "training-1": "running"}
    (running,) = poc.live
    assert (running.gpus, running.done, running.owner) == (2, 0.25, "me")
    assert poc.gpus_held == 2
    assert poc.gpu_hours == pytest.approx(2 * running.seconds / 3600)


def test_a_job_that_vanished_is_lost_and_a_cancelled_one_says_so(tmp_path):
    jobs = tmp_path / "ws" / "jobs"
    options = {"resources": Resources(), "cluster": CLUSTER, "folder": jobs}
    crashed = submit(functions.crash, 1, tmp_path / "pids", key="crash", **options)
    while crashed.state() in ("queued", "running"):
        time.sleep(0.05)
    ended = submit(functions.note_and_wait, tmp_path / "n", tmp_path / "g", key="wait", **options)
    ended.cancel()
    assert {job.key: job.state for job in look(tmp_path / "ws").jobs} == {
        "crash": "lost", "wait": "cancelled",
    }  # fmt: skip


def test_the_table_names_what_runs_and_what_it_costs(runs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["--workspace", str(runs), "--once", "--price", "3"]) == 0
    said = capsys.readouterr().out
    assert "1 jobs run, 0 queue; 2 GPUs held" in said
    assert "6.00 an hour now" in said
    assert re.search(r"poc +training-1 +train +running +\S+ +25%", said)
    assert "poc/judge: 1 of 2 ready" in said
    assert "Its driver was not heard for ever" in said


def test_what_is_no_workspace_is_refused(tmp_path, capsys):
    assert main(["--workspace", str(tmp_path), "--once"]) == 2
    assert "is no workspace and holds none" in capsys.readouterr().err


def numbers(runs, **options) -> str:
    registry = CollectorRegistry()
    registry.register(Workspaces([runs], **options))
    return generate_latest(registry).decode()


def test_prometheus_is_told_the_same(runs):
    text = numbers(runs, price=3.0)
    assert 'ccai_jobs{role="train",state="running",workspace="poc"} 1.0' in text
    assert 'ccai_gpus_held{workspace="poc"} 2.0' in text
    assert 'ccai_job_done_ratio{job="training-1",workspace="poc"} 0.25' in text
    assert 'ccai_fleet_instances{fleet="judge",state="ready",workspace="poc"} 1.0' in text
    hours = float(re.search(r'ccai_gpu_hours_total\{role="train".*\} (\S+)', text)[1])
    spend = float(re.search(r'ccai_spend_total\{role="train".*\} (\S+)', text)[1])
    assert 0 < spend == pytest.approx(3 * hours)
    assert "ccai_spend_total" not in numbers(runs)


def test_one_damaged_workspace_does_not_hide_the_others(runs, tmp_path):
    attempt = tmp_path / "bad" / "jobs" / "x" / "attempt-1"
    attempt.mkdir(parents=True)
    (attempt / "job.json").write_text("{")
    registry = CollectorRegistry()
    registry.register(Workspaces([runs, tmp_path]))
    text = generate_latest(registry).decode()
    assert "ccai_workspaces_unreadable 1.0" in text
    assert 'ccai_gpus_held{workspace="poc"} 2.0' in text


def test_the_dashboard_and_the_page_know_exactly_the_names_that_there_are(runs):
    there = set(re.findall(r"^# TYPE (\w+)", numbers(runs, price=1.0), re.MULTILINE))
    drawn = json.loads((ROOT / "docker" / "grafana" / "ccai.json").read_text("utf-8"))
    asked = {target["expr"] for panel in drawn["panels"] for target in panel["targets"]}
    names = {name for expr in asked for name in re.findall(r"ccai_\w+", expr)}
    assert names == there
    page = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
    assert set(re.findall(r"`(ccai_\w+)`", page)) == there


def test_the_command_answers_prometheus_on_this_machine(runs):
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.metrics", "--workspace", str(runs), "--port", "0"],
        cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        url = process.stdout.readline().split(";")[0]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert b"ccai_gpus_held" in answer.read()
    finally:
        process.terminate()
    assert process.wait(30) == 0
