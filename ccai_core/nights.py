"""The nights of an evaluation: what was measured, what became of each, and what is out of control.

history.jsonl     a line a night, append-only; what was half written when a machine died is skipped

    history = History(workspace.root / "history.jsonl")
    night = history.judged(night)
    history.add(night)
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from ccai_core.config import Config
from ccai_core.control_chart import Point, judge, limit_of
from ccai_core.errors import DataError

Role = Literal["champion", "challenger"]
Status = Literal["measured", "failed", "missed"]


class Measured(Config):
    """One measure of one night: a model against its baseline on the same items."""

    baseline: float = Field(description="The model before training.")
    trained: float = Field(description="The model after training.")
    difference: float = Field(description="How much better the trained one is; below 0: worse.")
    n: int = Field(ge=1, description="Items that counted.")


class Chart(Config):
    """A measure of one night on its charts."""

    difference: Point = Field(description="Trained against baseline: is the model as it was?")
    baseline: Point = Field(description="The baseline alone: is the measuring as it was?")


class Night(Config):
    """One night of one model."""

    night: date = Field(description="The night's date, in the time zone of the schedule.")
    role: Role = Field("champion", description="The registry's alias of the model.")
    status: Status = Field(description="What became of it.")
    model: str = Field("", description="Identity of the model.")
    baseline: str = Field("", description="Identity of its baseline.")
    began: str = Field("", description="When it really ran, ISO 8601.")
    seconds: float = Field(0.0, ge=0, description="How long it took.")
    measures: dict[str, Measured] = Field({}, description="By the measure's key.")
    charts: dict[str, Chart] = Field({}, description="The same measures on their charts.")
    said: str = Field("", description="Why it failed, or was not run.")
    simulated: bool = Field(False, description="Whether the numbers were drawn, not measured.")

    @property
    def regressions(self) -> list[str]:
        """Return the measures in which the model is worse than it was."""
        return [key for key, chart in self.charts.items() if chart.difference.is_low]

    @property
    def drifts(self) -> list[str]:
        """Return the measures whose baseline is not what it was: the measuring has changed."""
        return [
            key
            for key, chart in self.charts.items()
            if chart.baseline.is_low or chart.baseline.is_high
        ]


class History:
    """All nights of a workspace."""

    def __init__(self, path: Path, keep: int = 30) -> None:
        """Read nothing yet; `keep` nights are what a new one is compared with."""
        self._path, self._keep = path, keep

    def nights(self) -> list[Night]:
        """Return all nights in the order in which they were written.

        Raises:
            DataError: a line that is not the last one cannot be read.
        """
        if not self._path.exists():
            return []
        lines = self._path.read_text(encoding="utf-8").split("\n")
        nights = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                nights.append(Night.model_validate(json.loads(line)))
            except (ValueError, ValidationError) as error:
                # Half written; the next night takes its place.
                if number == len(lines):
                    continue
                raise DataError(
                    f"{self._path} line {number} is damaged ({str(error).splitlines()[0]}). Remove "
                    "the line: that night is then missing from the charts."
                ) from None
        return nights

    def add(self, night: Night) -> None:
        """Append a night, whole before this returns."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            file.seek(0)
            written = file.read()
            # What follows the last line feed was being written when a machine stopped.
            file.truncate(written.rfind(b"\n") + 1)
            file.write(night.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def measured(self, night: date, role: Role) -> Night | None:
        """Return the night as it was measured last, if it was."""
        found = [
            each
            for each in self.nights()
            if (each.night, each.role, each.status) == (night, role, "measured")
        ]
        return found[-1] if found else None

    def is_done(self, night: date) -> bool:
        """Whether nothing of the night is left to do: the champion is measured, nobody failed."""
        states = {each.role: each.status for each in self.nights() if each.night == night}
        return states.get("champion") == "measured" and "failed" not in states.values()

    def gap(self, tonight: date, role: Role) -> list[date]:
        """Return the nights before `tonight` of which nothing is known, since the first one."""
        known = [each.night for each in self.nights() if each.role == role]
        if not known:
            return []
        days = (tonight - max(known)).days
        return [max(known) + timedelta(days=day) for day in range(1, days)]

    def judged(self, night: Night) -> Night:
        """Return the night with its place on the charts of the nights before it."""
        before = self._comparable(night)
        limit, charts = limit_of(len(night.measures)), {}
        for key, measured in night.measures.items():
            finest = 1 / measured.n
            was, was_baseline = (
                _values(before, key, which)[-self._keep :] for which in ("difference", "baseline")
            )
            charts[key] = Chart(
                difference=judge(was, measured.difference, finest, limit),
                baseline=judge(was_baseline, measured.baseline, finest, limit),
            )
        return night.model_copy(update={"charts": charts})

    def _comparable(self, night: Night) -> list[Night]:
        """Return the other nights of the same model against the same baseline, each once."""
        found = {
            each.night: each
            for each in self.nights()
            if (each.role, each.status, each.model, each.baseline)
            == (night.role, "measured", night.model, night.baseline)
        }
        return [each for day, each in sorted(found.items()) if day < night.night]


def _values(nights: Sequence[Night], key: str, which: str) -> list[float]:
    """Return a measure's values where it was in control: what is not belongs to no baseline."""
    found = []
    for night in nights:
        if key not in night.measures:
            continue
        chart = night.charts.get(key)
        point: Point | None = getattr(chart, which) if chart else None
        if point is None or not (point.is_low or point.is_high):
            found.append(float(getattr(night.measures[key], which)))
    return found
