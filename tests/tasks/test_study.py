"""A study goes on with its own trials, however its driver ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from ccai_core.errors import ConfigError
from ccai_core.search_space import read_space
from tasks.study import Study


def study(tmp_path: Path, **changes: Any) -> Study:
    settings: dict[str, Any] = {"objective": "loss", "pruner": "median", "seed": 1, **changes}
    return Study(tmp_path / "studies" / "s.jsonl", "s", read_space("dpo"), **settings)


def test_what_was_suggested_is_the_same_after_a_kill(tmp_path: Path) -> None:
    first = study(tmp_path)
    asked = [first.values(first.ask()) for _ in range(3)]
    assert len({str(values) for values in asked}) == 3
    again = study(tmp_path)
    left = again.unfinished()
    assert [again.values(trial) for trial in left] == asked
    again.tell(left[0], 0.5)
    assert [trial.number for trial in study(tmp_path).unfinished()] == [1, 2]


def test_a_driver_that_was_killed_while_it_wrote_hinders_nobody(tmp_path: Path) -> None:
    first = study(tmp_path)
    asked = [first.values(first.ask()) for _ in range(2)]
    file = tmp_path / "studies" / "s.jsonl"
    file.write_bytes(file.read_bytes()[:-15])
    Path(f"{file}.lock").touch()
    began = time.monotonic()
    again = study(tmp_path)
    assert again.values(again.unfinished()[0]) == asked[0]
    third = again.values(again.ask())
    assert time.monotonic() - began < 10, "it did not wait for the lock to grow old"
    assert study(tmp_path).trials[2].params == third


def test_a_study_that_goes_on_does_not_begin_with_the_same_values(tmp_path: Path) -> None:
    first = study(tmp_path)
    values = first.values(first.ask())
    again = study(tmp_path)
    assert again.values(again.ask()) != values


def test_values_are_within_their_ranges_and_of_their_kind(tmp_path: Path) -> None:
    made = study(tmp_path)
    for _ in range(20):
        values = made.values(made.ask())
        assert 2e-7 <= values["learning_rate"] <= 1e-5
        assert values["epochs"] in {1, 2, 3}
        assert isinstance(values["epochs"], int)
        assert values["warmup_ratio"] in {0.0, 0.1}


def test_what_is_worse_than_the_others_at_the_same_point_is_seen(tmp_path: Path) -> None:
    made = study(tmp_path)
    for number in range(5):
        trial = made.ask()
        for point in (1, 2, 3):
            trial.report(0.5 + number / 100, point)
        made.tell(trial, 0.5)
    worse, better = made.ask(), made.ask()
    for point in (1, 2):
        worse.report(0.9, point)
        better.report(0.1, point)
    assert worse.should_prune()
    assert not better.should_prune()


@pytest.mark.parametrize(("objective", "best"), [("loss", 0), ("accuracy", 1)])
def test_the_best_is_the_smallest_loss_or_the_greatest_accuracy(
    tmp_path: Path, objective: str, best: int
) -> None:
    made = study(tmp_path, objective=objective)
    assert made.best is None
    for value in (0.2, 0.8):
        made.tell(made.ask(), value)
    made.tell(made.ask(), None, why="diverged")
    made.tell(made.ask(), None, pruned=True)
    assert made.best is not None
    assert made.best.number == best
    states = [trial.state for trial in made.trials[2:]]
    assert states == [TrialState.FAIL, TrialState.PRUNED]


def test_a_storage_that_cannot_be_used_is_said() -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        Study("nosuchdb://x", "s", read_space("dpo"), objective="loss", pruner="none", seed=0)
