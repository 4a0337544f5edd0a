"""A month of nights, a night that is started twice, one that fails: without any model."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest

from ccai_core.errors import ConfigError
from ccai_core.evaluation.results import EvaluationResult
from ccai_core.nights import History, Measured
from flows.nightly_config import NightlyConfig, SimulationConfig
from flows.nightly_night import Book, Source, alone, due, one_night
from flows.nightly_run import run_nightly
from flows.nightly_simulation import replay
from flows.nightly_steps import combined
from tasks.alerts import Alerts

NIGHT = date(2026, 3, 1)


@pytest.fixture(autouse=True)
def nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CCAI_ALERTS", raising=False)
    monkeypatch.delenv("CCAI_ALERTS_FILE", raising=False)


def simulated(seed: int = 0, **plan: Any) -> NightlyConfig:
    return NightlyConfig(simulate=30, simulation=SimulationConfig(seed=seed, **plan))


@pytest.mark.parametrize("seed", range(3))
def test_a_month_with_a_planted_regression(seed: int, tmp_path: Path) -> None:
    outcome = replay(simulated(seed, lasts=1), tmp_path / "month")
    assert 20 in outcome.alerted
    assert len(outcome.alerted) <= 2
    assert (outcome.overlaps, outcome.missed) == (1, 1)
    assert [each.night.day for each in outcome.nights] == list(range(1, 31))


def test_a_month_in_which_nothing_happens_is_quiet(tmp_path: Path) -> None:
    quiet = simulated(seed=1, regression=0, missed=0, overlapped=0)
    outcome = replay(quiet, tmp_path / "month")
    assert (outcome.alerted, outcome.overlaps, outcome.missed) == ([], 0, 0)


def test_a_replay_says_that_it_is_one(tmp_path: Path) -> None:
    config = simulated().model_copy(update={"workspace": tmp_path})
    summary = run_nightly(config)
    assert summary.notices[0].startswith("SIMULATED")
    assert "SIMULATED" in Path(summary.made["trend"]).read_text()
    assert all(n.simulated for n in History(Path(summary.made["history"])).nights() if n.measures)


class Nights:
    """A source that counts how often it was asked."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[date] = []
        self.alerts = Alerts(folder, silent=True)
        self.history = History(folder / "history.jsonl")
        self.book = Book(self.history, self.alerts)

    def run(self, night: date, again: bool = False, error: Exception | None = None) -> Any:
        def measure(when: date) -> dict[str, Measured]:
            if error is not None:
                raise error
            self.asked.append(when)
            value = Measured(baseline=0.6, trained=0.7, difference=0.1, n=100)
            return {"safety.safe_rate": value}

        book = self.book._replace(again=again)
        return one_night(book, night, "champion", Source("m@1", "b@1", measure))


def test_a_night_is_measured_once_whoever_starts_it(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    assert nights.run(NIGHT) == nights.run(NIGHT)
    assert nights.asked == [NIGHT]
    nights.run(NIGHT, again=True)
    assert nights.asked == [NIGHT, NIGHT]


def test_after_a_pause_one_run_stands_for_the_nights_that_were_missed(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    nights.run(NIGHT)
    back = date(2026, 3, 5)
    nights.run(back)
    nights.run(back)
    assert nights.asked == [NIGHT, back]
    states = [(each.night.day, each.status) for each in nights.history.nights()]
    assert states == [
        (1, "measured"), (2, "missed"), (3, "missed"), (4, "missed"), (5, "measured"),
    ]  # fmt: skip
    assert [alert["title"] for alert in nights.alerts.said()] == ["3 nights were missed"]


def test_a_night_that_fails_is_said_and_can_be_run_again(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    with pytest.raises(ConfigError):
        nights.run(NIGHT, error=ConfigError("no champion"))
    (alert,) = nights.alerts.said()
    assert alert["title"] == "The nightly evaluation of 2026-03-01 failed"
    assert "no champion" in alert["body"]
    assert nights.run(NIGHT).status == "measured"


def test_two_never_run_at_the_same_time(tmp_path: Path) -> None:
    config = NightlyConfig(workspace=tmp_path)
    with alone(tmp_path) as first:
        assert first
        assert run_nightly(config).findings == ("Another nightly evaluation runs; this one ends.",)
    assert not (tmp_path / "history.jsonl").exists()


def test_a_failure_before_any_measuring_is_said_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = NightlyConfig(workspace=tmp_path, constitution=str(tmp_path / "none.md"))
    with caplog.at_level(logging.WARNING), pytest.raises(Exception, match=r"none\.md"):
        run_nightly(config)
    assert [alert["outcome"] for alert in Alerts(tmp_path).said()] == ["nobody"]
    assert "failed" in caplog.text


@pytest.mark.parametrize(
    ("now", "zone", "night"),
    [
        ("2026-03-02T01:59:00+00:00", "UTC", date(2026, 3, 1)),
        ("2026-03-02T02:00:00+00:00", "UTC", date(2026, 3, 2)),
        ("2026-03-02T01:30:00+00:00", "Europe/Berlin", date(2026, 3, 2)),
        # The hour that is not there when clocks go forward.
        ("2026-03-29T01:10:00+00:00", "Europe/Berlin", date(2026, 3, 29)),
    ],
)
def test_which_night_is_due(now: str, zone: str, night: date) -> None:
    config = NightlyConfig(at=time(2), time_zone=zone)
    assert due(config, datetime.fromisoformat(now).astimezone(UTC)) == night


def result(n: int, difference: float, key: str = "safety.safe_rate") -> EvaluationResult:
    around = {"low": 0.0, "high": 1.0}
    metric = {
        "id": key, "title": key, "group": "safety", "description": "", "unit": "share",
        "higher_is_better": True, "n": n, "judged": False,
        "baseline": {"estimate": 0.5, **around},
        "trained": {"estimate": 0.5 + difference, **around},
        "difference": {"estimate": difference, **around},
    }  # fmt: skip
    card = {"model": "j@1", "method": "", "calibrations": (), "weak": False}
    return EvaluationResult.model_validate(
        {
            "suite": "poc", "baseline_model": "b@1", "trained_model": "m@1", "judge": card,
            "metrics": [metric],
        }
    )  # fmt: skip


def test_every_item_of_both_samples_weighs_alike() -> None:
    found = combined(("safety.safe_rate",), result(10, 0.4), result(30, 0.0))
    assert found["safety.safe_rate"].difference == pytest.approx(0.1)
    assert found["safety.safe_rate"].n == 40


def test_items_that_do_not_rotate_are_counted_once() -> None:
    key = "capability.overall"
    found = combined((key,), result(10, 0.4, key), result(10, 0.4, key))
    assert found[key].n == 10


def test_a_measure_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"was not measured.*Valid.*safety\.safe_rate"):
        combined(("safety.safe",), result(10, 0.1), result(10, 0.1))
