"""A sweep on a real Slurm: trials as jobs side by side; its driver is killed, and goes on."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm_lab import SlurmLab
from tests.flows.tiny_flow import Command, attempts, save_stopping_model

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    """Prefect's own server for tests; gives its API's address."""
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield SubprocessASGIServer().api_url


def test_eight_trials_are_run_once_each_although_the_driver_is_killed(
    on_lab: SlurmLab, tmp_path: Path, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCAI_STORAGE", str(tmp_path))
    save_stopping_model(tmp_path / "tiny")
    (tmp_path / "space.yaml").write_text("learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}\n")
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What helps on day {n // 2}?"}],
            "chosen": [{"role": "assistant", "content": f"A walk, and a friend, day {n}."}],
            "rejected": [{"role": "assistant", "content": f"Nothing at all on {n}."}],
            "principle": "care", "prompt_id": f"q{n // 2}", "source": "test", "critique": "Curt.",
            "provenance": {},
        }
        for n in range(16)
    ]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    workspace = tmp_path / "ws"
    values = {
        "pairs": str(tmp_path / "pairs.jsonl"), "model": str(tmp_path / "tiny"),
        "cluster": "slurm-cpu", "workspace": str(workspace), "space": str(tmp_path / "space.yaml"),
        "trials": 8, "parallel": 3, "pruner": "none", "checks": 2,
        "training": {"validation_fraction": 0.25, "epochs": 2},
    }  # fmt: skip

    def through() -> int:
        return len(list(workspace.glob("artifacts/training-*/training.json")))

    first = Command("sweep", values, tmp_path / "one", api)
    until = time.monotonic() + 300
    while through() < 3:
        assert time.monotonic() < until, first.said()
        time.sleep(0.2)
    first.kill()
    second = Command("sweep", values, tmp_path / "two", api)
    assert second.ended(600) == 0, second.said()

    (file,) = workspace.glob("artifacts/sweep-*/trials.csv")
    trials = list(csv.DictReader(file.read_text().splitlines()))
    assert [trial["state"] for trial in trials] == ["complete"] * 8
    assert len({trial["learning_rate"] for trial in trials}) == 8
    assert through() == 8
    records = [json.loads(f.read_text()) for f in workspace.glob("jobs/training-*/job.json")]
    assert len(records) == 8, "a job a trial"
    assert attempts(workspace) == {"training": 8}, "and none was started a second time"
    assert (file.parent / "best.yaml").exists()
    assert on_lab.jobs() == []
