"""flows.sweep: trials are ordinary trainings, told apart, resumed, and the best one is a file."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ccai_core.errors import ConfigError, ModelError
from ccai_core.training_config import TrainingResult
from flows.cli import parse
from flows.config import TrainingFlowConfig
from flows.sweep import sweep
from flows.sweep_config import SweepConfig
from flows.sweep_plan import plan_sweep
from flows.training import training
from tests.flows.tiny_flow import Command, save_stopping_model

SPACE = """\
learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
epochs: {low: 1, high: 2}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, pairs and a space."""
    folder = tmp_path_factory.mktemp("sweep")
    save_stopping_model(folder / "tiny")
    (folder / "space.yaml").write_text(SPACE)
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
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def values(made: Path, workspace: Path, **changes: Any) -> dict[str, Any]:
    return {
        "pairs": str(made / "pairs.jsonl"), "model": str(made / "tiny"), "device": "cpu",
        "workspace": str(workspace), "space": str(made / "space.yaml"), "trials": 3, "checks": 2,
        "training": {"validation_fraction": 0.25}, "pruner": "none", **changes,
    }  # fmt: skip


def table(workspace: Path) -> list[dict[str, str]]:
    newest = max(workspace.glob("artifacts/sweep-*/trials.csv"), key=lambda f: f.stat().st_mtime)
    return list(csv.DictReader(newest.read_text().splitlines()))


def trainings(workspace: Path) -> int:
    return len(list(workspace.glob("artifacts/training-*/training.json")))


def test_the_best_of_all_trials_is_a_file_that_training_takes(
    server: str, made: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "ws"
    summary = sweep(SweepConfig.model_validate(values(made, workspace, parallel=2)))
    rows = table(workspace)
    assert [row["state"] for row in rows] == ["complete"] * 3
    best = min(rows, key=lambda row: float(row["value"]))
    file = Path(summary.made["best settings"])
    assert (
        float(yaml.safe_load(file.read_text())["training"]["learning_rate"])
        == float(best["learning_rate"])
    )  # fmt: skip
    assert (file.parent / "history.svg").read_text().startswith("<?xml")
    # The same settings are the same training: its model is there already.
    options = summary.next_commands[0].split()[3:]
    config, _ = parse(TrainingFlowConfig, "", "", options)
    found = training(config)
    assert trainings(workspace) == 3
    result = TrainingResult.model_validate_json(
        (Path(found.made["model"]).parent / "training.json").read_text()
    )
    assert result.validation_after is not None
    assert f"{result.validation_after.loss:.6g}" == best["value"]
    # More trials are added to those that are there.
    sweep(SweepConfig.model_validate(values(made, workspace, trials=4)))
    assert table(workspace)[:3] == rows
    assert trainings(workspace) == 4


@pytest.mark.slow
def test_a_killed_sweep_goes_on_with_the_same_trials(
    server: str, made: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "ws"
    config = values(made, workspace, trials=3)
    first = Command("sweep", config, tmp_path / "one", server)
    until = time.monotonic() + 120
    while trainings(workspace) < 1:
        assert time.monotonic() < until, first.said()
        time.sleep(0.1)
    first.process.kill()
    first.process.wait()
    jobs = {file.parent.name for file in (workspace / "jobs").glob("training-*/job.json")}
    second = Command("sweep", config, tmp_path / "two", server)
    assert second.ended() == 0, second.said()
    assert len(table(workspace)) == trainings(workspace) == 3
    after = {file.parent.name for file in (workspace / "jobs").glob("training-*/job.json")}
    assert jobs <= after
    assert len(after) == 3, "no trial was begun anew with other settings"


def test_a_plan_says_space_trials_and_updates(made: Path, tmp_path: Path) -> None:
    said = plan_sweep(SweepConfig.model_validate(values(made, tmp_path / "ws")))
    assert "3 trials over" in said
    assert "learning_rate: 0.0001 to 0.01 (log)" in said
    assert "16 pairs, about 9 updates each, measured 2 times" in said
    assert not (tmp_path / "ws").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": "dop"}, "--space dop: unknown"),
        ({"training": {"validation_fraction": 0}}, "set validation_fraction above 0"),
        ({"space": "dpo", "objective": "margin"}, "margins grow with beta"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    made: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises((ConfigError, ModelError, ValueError), match=said):
        plan_sweep(SweepConfig.model_validate(values(made, tmp_path / "ws", **changes)))
