"""flows.sweep: trials are ordinary trainings, told apart, resumed, and the best one is a file."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from optuna.trial import create_trial

from ccai_core.errors import ConfigError, JobMemoryError, ModelError
from ccai_core.search_space import read_space
from ccai_core.training_config import TrainingResult
from flows import sweep_results
from flows.cli import parse
from flows.config import TrainingFlowConfig
from flows.sweep import sweep
from flows.sweep_config import SweepConfig
from flows.sweep_plan import plan_sweep
from flows.training import training
from tasks import trials
from tasks.study import Study
from tasks.training import trained
from tests.flows.tiny_flow import Command, alive, attempts, save_stopping_model, wait_for

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
    summary = sweep(SweepConfig.model_validate(values(made, workspace, trials=2, parallel=2)))
    rows = table(workspace)
    assert [row["state"] for row in rows] == ["complete"] * 2
    best = min(rows, key=lambda row: float(row["value"]))
    file = Path(summary.made["best settings"])
    assert (
        float(yaml.safe_load(file.read_text())["training"]["learning_rate"])
        == float(best["learning_rate"])
    )  # fmt: skip
    assert (file.parent / "history.svg").read_text().startswith("<?xml")
    # Every setting is in it, so that it wins over whatever preset it is used with.
    with_preset, _ = parse(
        TrainingFlowConfig, "", "",
        ["--preset", "development", "--config", str(file), "--pairs", "x.jsonl"],
    )  # fmt: skip
    assert (
        with_preset.training.model_dump(mode="json") == yaml.safe_load(file.read_text())["training"]
    )
    # The same settings are the same training: its model is there already.
    options = summary.next_commands[0].split()[3:]
    config, _ = parse(TrainingFlowConfig, "", "", options)
    found = training(config)
    assert trainings(workspace) == 2
    result = TrainingResult.model_validate_json(
        (Path(found.made["model"]).parent / "training.json").read_text()
    )
    assert result.validation_after is not None
    assert f"{result.validation_after.loss:.6g}" == best["value"]
    # More trials are added to those that are there.
    sweep(SweepConfig.model_validate(values(made, workspace, trials=3)))
    assert table(workspace)[:2] == rows
    assert trainings(workspace) == 3


def test_from_four_trials_on_it_is_drawn_which_settings_mattered(tmp_path: Path) -> None:
    study = Study(
        tmp_path / "s.jsonl", "s", read_space("dpo"), objective="loss", pruner="median", seed=1
    )
    for value in (0.6, 0.5, 0.4, 0.3):
        trial = study.ask()
        study.values(trial)
        study.tell(trial, value)
    sweep_results._draw(study, "loss", tmp_path)
    for name in ("history", "importances", "slices"):
        assert "held-out loss" in (tmp_path / f"{name}.svg").read_text()


@pytest.mark.slow
def test_what_is_hopeless_is_ended_early_and_its_job_too(
    server: str, made: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "ws"
    config = values(made, workspace, trials=1, pruner="median", checks=20)
    config["training"] = {"validation_fraction": 0.25, "gradient_accumulation": 1}
    (tmp_path / "space.yaml").write_text(SPACE.replace("low: 1, high: 2", "low: 30, high: 31"))
    config["space"] = str(tmp_path / "space.yaml")
    sweep(SweepConfig.model_validate(config))
    (file,) = (workspace / "studies").glob("*.jsonl")
    space = read_space(config["space"])
    study = Study(file, file.stem, space, objective="loss", pruner="median", seed=0)
    first = study.trials[0]
    for _ in range(4):
        points = dict.fromkeys(range(1, 20), 0.0)
        better = create_trial(
            params=first.params, distributions=first.distributions, value=0.0,
            intermediate_values=points,
        )  # fmt: skip
        study.inner.add_trial(better)
    sweep(SweepConfig.model_validate({**config, "trials": 6}))
    last = table(workspace)[5]
    assert (last["state"], last["value"]) == ("pruned", "")
    assert last["why"] == "worse than the others at this point"
    assert 2 <= int(last["measured"]) < 19
    assert trainings(workspace) == 1
    assert alive(workspace) == []


@pytest.mark.slow
def test_the_same_settings_are_trained_once_also_when_trials_run_side_by_side(
    server: str, made: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "ws"
    (tmp_path / "space.yaml").write_text("beta: {choices: [0.1, 0.3]}\n")
    # With this seed the first three suggestions are the same.
    config = values(
        made, workspace, space=str(tmp_path / "space.yaml"), parallel=2, sweep_seed=5,
        objective="accuracy",
    )  # fmt: skip
    sweep(SweepConfig.model_validate(config))
    rows = table(workspace)
    assert len({row["beta"] for row in rows}) == 1
    assert len({row["value"] for row in rows}) == 1
    assert attempts(workspace) == {"training": 1}
    # Not beside the first, where the end of one would be the end of both, but after it.
    assert [row["measured"] for row in rows[1:]] == ["0", "0"]


@pytest.mark.slow
def test_a_trial_that_wants_too_much_memory_fails_alone(
    server: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short_of_memory(*arguments: Any, step: str, **more: Any) -> TrainingResult:
        if step == "trial-0":
            raise JobMemoryError("Job training-0: used more than its 4 GB.")
        return trained(*arguments, step=step, **more)

    monkeypatch.setattr(trials, "trained", short_of_memory)
    summary = sweep(SweepConfig.model_validate(values(made, tmp_path / "ws", trials=2)))
    rows = table(tmp_path / "ws")
    assert [row["state"] for row in rows] == ["fail", "complete"]
    assert rows[0]["why"] == "Job training-0: used more than its 4 GB."
    assert "1 went to their end, 0 ended early, 1 failed" in summary.text()


@pytest.mark.slow
def test_cancelled_in_the_ui_its_jobs_end_and_its_trials_are_not_lost(
    server: str, made: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "ws"
    config = values(made, workspace, trials=3, parallel=2)
    first = Command("sweep", config, tmp_path / "one", server)
    wait_for(lambda: attempts(workspace) == {"training": 2}, 120)
    (run,) = httpx.post(
        f"{server}/flow_runs/filter", json={"sort": "START_TIME_DESC", "limit": 1}
    ).json()
    state = {"state": {"type": "CANCELLING", "name": "Cancelling", "message": "by a test"}}
    httpx.post(f"{server}/flow_runs/{run['id']}/set_state", json=state).raise_for_status()
    assert first.ended(60) == 130, first.said()
    assert first.err.read_text().startswith("Cancelled; its jobs are ended.")
    assert alive(workspace) == []
    begun = {file.parent.name for file in (workspace / "jobs").glob("training-*/job.json")}
    second = Command("sweep", config, tmp_path / "two", server)
    assert second.ended() == 0, second.said()
    after = {file.parent.name for file in (workspace / "jobs").glob("training-*/job.json")}
    assert begun < after
    assert len(table(workspace)) == trainings(workspace) == len(after) == 3


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
    first.kill()
    jobs = {file.parent.name for file in (workspace / "jobs").glob("training-*/job.json")}
    second = Command("sweep", config, tmp_path / "two", server)
    assert second.ended() == 0, second.said()
    assert len(table(workspace)) == trainings(workspace) == 3
    after = {file.parent.name for file in (workspace / "jobs").glob("training-*/job.json")}
    assert jobs <= after
    assert len(after) == 3, "no trial was begun anew with other settings"
    assert attempts(workspace) == {"training": 3}, "and none was started a second time"


def test_a_plan_says_space_trials_and_updates(made: Path, tmp_path: Path) -> None:
    said = plan_sweep(SweepConfig.model_validate(values(made, tmp_path / "ws")))
    assert "3 trials over" in said
    assert "learning_rate: 0.0001 to 0.01 (log)" in said
    assert "16 pairs, about 3 to 6 updates each, measured 2 times" in said
    assert not (tmp_path / "ws").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": "dop"}, "--space dop: unknown"),
        ({"training": {"validation_fraction": 0}}, "set validation_fraction above 0"),
        ({"space": "lora"}, "lora_rank means nothing with method full"),
        ({"storage": "postgresql://me:hunter2@db/x"}, "leave the password out of the URL"),
        ({"storage": "sweeps.db"}, "no URL of a database"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    made: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises((ConfigError, ModelError, ValueError), match=said) as caught:
        plan_sweep(SweepConfig.model_validate(values(made, tmp_path / "ws", **changes)))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("space", "objective", "said"),
    [
        ("loss: {choices: [sigmoid, ipo]}", "loss", "with another loss are other quantities"),
        ("beta: {low: 0.1, high: 0.3}", "loss", "with another beta are other quantities"),
        ("beta: {low: 0.1, high: 0.3}", "margin", "margins grow with beta"),
    ],
)
def test_different_quantities_are_not_compared(
    made: Path, tmp_path: Path, space: str, objective: str, said: str
) -> None:
    (tmp_path / "space.yaml").write_text(space + "\n")
    asked = values(made, tmp_path / "ws", space=str(tmp_path / "space.yaml"), objective=objective)
    with pytest.raises(ValueError, match=said):
        SweepConfig.model_validate(asked)
    SweepConfig.model_validate({**asked, "objective": "accuracy"})


def test_a_plan_counts_the_jobs_and_gpu_hours_of_all_trials(made: Path, tmp_path: Path) -> None:
    profile = {
        "name": "gpus", "kind": "slurm", "storage": str(tmp_path), "gpus_per_node": 4,
        "minutes": 30, "limits": {"max_jobs": 16, "max_gpus": 3, "max_gpu_hours": 100},
    }  # fmt: skip
    (tmp_path / "gpus.yaml").write_text(yaml.safe_dump(profile))
    asked = values(
        made, tmp_path / "ws", cluster=str(tmp_path / "gpus.yaml"), trials=10, parallel=8
    )
    del asked["device"]
    said = plan_sweep(SweepConfig.model_validate(asked))
    assert "10 trials over" in said
    assert "3 at once" in said
    assert "training: 10 jobs, each 1 GPUs, at most 30 min each" in said
    assert "at most 5 GPU hours; the profile allows 100 of one flow run" in said
