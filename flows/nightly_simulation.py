"""A month of nights in seconds, to see what the nightly evaluation does: its numbers are drawn.

Only the measuring is simulated. Chart, history, lock, alerts and the trend are those of real
nights, in a folder of their own; nobody is sent an alert.

    outcome = replay(NightlyConfig(simulate=30), Path("runs/nightly/simulated-0"))
"""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ccai_core.nights import History, Measured, Night
from flows.nightly_config import NightlyConfig
from flows.nightly_night import Book, Source, alone, one_night
from tasks.alerts import Alerts

_FIRST = date(2026, 1, 1)
_POOL = 1000
# Shares of the pool's items that the baseline, and the trained model where the baseline does not,
# gets right; and how often the same item turns out otherwise in another night.
_BASELINE, _GAIN, _LOSS, _FLICKER = 0.65, 0.35, 0.05, 0.03


class Replayed(NamedTuple):
    """What became of the month."""

    nights: list[Night]
    alerted: list[int]
    """Nights, from 1, on which a regression was found."""
    drifted: list[int]
    """Nights on which the measuring seemed to have changed, which it never does here."""
    overlaps: int
    """Second starts that were turned away."""
    missed: int
    """Nights on which the machine was off, and that are noted as such."""


def replay(config: NightlyConfig, folder: Path) -> Replayed:
    """Replay the nights from the first; what an earlier replay left there is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    plan = config.simulation
    month = _Month(config)
    source = Source("simulated@trained", "simulated@baseline", month.measure, simulated=True)
    now = [_FIRST]
    book = Book(
        History(folder / "history.jsonl", config.history),
        Alerts(folder, now=lambda: _noon(now[0]), silent=True),
    )
    alerted, drifted, overlaps = [], [], 0
    for number in range(1, config.simulate + 1):
        if number == plan.missed:
            continue
        now[0] = _FIRST + timedelta(days=number - 1)
        with alone(folder):
            if number == plan.overlapped:
                with alone(folder) as second:
                    overlaps += not second
            night = one_night(book, now[0], "champion", source)
            # A catch-up run that comes late finds the night there.
            one_night(book, now[0], "champion", source)
        if night.regressions:
            alerted.append(number)
        if night.drifts:
            drifted.append(number)
    nights = book.history.nights()
    missed = sum(night.status == "missed" for night in nights)
    return Replayed(nights, alerted, drifted, overlaps, missed)


class _Month:
    """Two models that answer a pool of items, each always alike but for some flicker."""

    def __init__(self, config: NightlyConfig) -> None:
        self._config = config
        draw = np.random.default_rng([config.simulation.seed, 0])
        shape = (len(config.measures), _POOL)
        self._baseline = draw.random(shape) < _BASELINE
        gained = draw.random(shape) < _GAIN
        lost = draw.random(shape) < _LOSS
        self._trained = np.where(self._baseline, ~lost, gained)

    def measure(self, night: date) -> dict[str, Measured]:
        number = (night - _FIRST).days + 1
        draw = np.random.default_rng([self._config.simulation.seed, number])
        return {
            key: self._one(at, key, number, draw) for at, key in enumerate(self._config.measures)
        }

    def _one(self, at: int, key: str, number: int, draw: np.random.Generator) -> Measured:
        size = self._config.evaluation.safety_prompts
        rotating = draw.choice(np.arange(size, _POOL), size, replace=False)
        # As in earnest, the items of capability do not rotate.
        asked = np.arange(size) if key.startswith("capability.") else np.r_[:size, rotating]
        baseline, trained = self._baseline[at, asked], self._trained[at, asked]
        plan = self._config.simulation
        if plan.is_worse(number):
            spoiled = draw.random(len(asked)) < plan.drop / max(float(trained.mean()), plan.drop)
            trained = trained & ~spoiled
        before, after = (
            (right ^ (draw.random(len(asked)) < _FLICKER)).mean() for right in (baseline, trained)
        )
        return Measured(
            baseline=float(before),
            trained=float(after),
            difference=float(after - before),
            n=len(asked),
        )


def _noon(day: date) -> datetime:
    return datetime.combine(day, time(12), UTC)
