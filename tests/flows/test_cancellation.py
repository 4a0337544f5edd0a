"""Cancelling in the Prefect UI: a real server, a real command, and the call that the UI makes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.processes import end_processes
from tests.flows.tiny_flow import TINY, Command, alive, wait_for, write_settings

pytestmark = pytest.mark.slow


def ask(api: str, path: str, body: Any = None) -> Any:
    """Call the server's REST API, as the UI does."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{api}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    environment.pop("PREFECT_API_URL", None)
    command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, *command], env=environment, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}/api"

    def answers() -> bool:
        assert server.poll() is None, (tmp_path / "server.log").read_text()
        try:
            return bool(ask(address, "/health"))
        except OSError:
            return False

    try:
        wait_for(answers, 120, every=0.3)
        yield address
    finally:
        server.terminate()
        server.wait(30)
        end_processes(partial(alive, tmp_path / "ws"), grace=0)


def run_of(api: str) -> dict[str, Any] | None:
    runs = ask(api, "/flow_runs/filter", {"sort": "START_TIME_DESC"})
    return runs[0] if runs else None


@pytest.mark.parametrize("state", ["CANCELLING", "CANCELLED"])
def test_cancelling_in_the_ui_ends_everything_and_the_same_command_goes_on(
    api: str, tmp_path: Path, state: str
) -> None:
    generation = {**TINY["preferences"]["generation"], "batch_size": 1}
    values = write_settings(
        tmp_path, max_pairs=200, preferences={**TINY["preferences"], "generation": generation}
    )
    workspace = tmp_path / "ws"
    journal = workspace / "journal" / "calls.jsonl"
    first = Command("poc", values, tmp_path / "1", api)
    wait_for(lambda: journal.exists() and journal.stat().st_size > 20_000, 120)
    run = run_of(api)
    assert run is not None
    assert run["state_type"] == "RUNNING"
    asked = {"state": {"type": state, "name": state.capitalize(), "message": "by a test"}}
    ask(api, f"/flow_runs/{run['id']}/set_state", asked)

    assert first.ended(30) == 130, first.said()
    assert first.err.read_text().startswith("Cancelled; its jobs are ended.")
    assert "Traceback" not in first.said()
    assert alive(workspace) == []
    now = ask(api, f"/flow_runs/{run['id']}")
    assert (now["state_type"], now["state_name"]) == ("CANCELLED", "Cancelled")

    second = Command("poc", {**values, "max_pairs": 12}, tmp_path / "2", api)
    assert second.ended(240) == 0, second.said()
    check_it_is_all_visible(api)


def check_it_is_all_visible(api: str) -> None:
    run = run_of(api)
    assert run is not None
    assert (run["state_type"], run["parameters"]["config"]["max_pairs"]) == ("COMPLETED", 12)
    ours = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    tasks = wait_for(
        lambda: (
            {
                t["name"]
                for t in ask(api, "/task_runs/filter", ours)
                if t["state_type"] == "COMPLETED"
            }
            >= {"generate 12 pairs", "train tiny", "evaluate tiny-ccai"}
        ),
        20,
        every=0.3,
    )
    assert tasks
    artifacts = {a["key"]: a for a in ask(api, "/artifacts/filter", ours)}
    assert {"preference-pairs", "training", "evaluation", "funnel", "report"} <= artifacts.keys()
    lines = ask(api, "/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
    assert any("attempt 1; its log:" in line["message"] for line in lines)
