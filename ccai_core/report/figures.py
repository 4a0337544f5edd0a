"""Where things go in the report's figures, in percent of their width; the template draws them.

Percentages, not pixels: the same markup is then right on a phone and on a wide screen, and its
colours and words stay the page's own.

    for panel in forest(result.metrics):
        for row in panel.rows:
            print(row.metric.title, row.low, row.at, row.high)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ccai_core.evaluation.results import Interval, Metric
from ccai_core.preferences import Funnel
from ccai_core.report.words import GROUPS, Outcome, is_finite, outcome, plain

_AXES = {
    "share": "Difference in percentage points, trained − baseline",
    "probability": "Difference in probability (0 to 1), trained − baseline",
    "perplexity": "Difference in perplexity, trained − baseline",
    "score": "Difference in grade (1 to 10), trained − baseline",
    "points": "Difference in points a round (2 to 6), trained − baseline",
}
# Room for a mark at the very end of the axis.
_MARGIN = 4.0


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Row:
    """One metric of a forest plot; `at` is None where there is nothing to draw."""

    metric: Metric
    outcome: Outcome
    low: float | None
    at: float | None
    high: float | None


@dataclass(frozen=True)
class Panel:
    """Metrics of one unit and direction on one axis; better is always on the right."""

    axis: str
    backwards: bool
    groups: tuple[tuple[str, tuple[Row, ...]], ...]
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Bar:
    """A count as a bar; `kind` is total, lost, kept or spare."""

    label: str
    count: int
    width: float
    kind: str


def forest(metrics: Sequence[Metric]) -> tuple[Panel, ...]:
    """Return a panel for each unit and direction that occurs."""
    kinds = dict.fromkeys((metric.unit, metric.higher_is_better) for metric in metrics)
    return tuple(
        _panel([m for m in metrics if (m.unit, m.higher_is_better) == kind]) for kind in kinds
    )


def _panel(metrics: Sequence[Metric]) -> Panel:
    unit, forwards = metrics[0].unit, metrics[0].higher_is_better
    drawable = [metric.difference for metric in metrics if outcome(metric) != "unmeasured"]
    extent = _extent(drawable)
    direction = 1 if forwards else -1
    rows = [_row(metric, extent * direction) for metric in metrics]
    groups = tuple(
        (title, mine)
        for group, title in GROUPS.items()
        if (mine := tuple(row for row in rows if row.metric.group == group))
    )
    scale = 100 if unit == "share" else 1
    ticks = tuple(
        Tick(_place(value, extent * direction), _signed(value * scale)) for value in _ticks(extent)
    )
    return Panel(_AXES[unit], not forwards, groups, ticks)


def _row(metric: Metric, extent: float) -> Row:
    found = outcome(metric)
    if found == "unmeasured":
        return Row(metric, found, None, None, None)
    ends = sorted(_place(end, extent) for end in (metric.difference.low, metric.difference.high))
    return Row(metric, found, ends[0], _place(metric.difference.estimate, extent), ends[1])


def _extent(intervals: Iterable[Interval]) -> float:
    ends = [abs(e) for i in intervals for e in (i.low, i.estimate, i.high)]
    return max(ends, default=0.0) or 1.0


def _place(value: float, extent: float) -> float:
    """Return where a value is between −extent and extent, in percent of the width."""
    return round(50 + value / extent * (50 - _MARGIN), 3)


def _ticks(extent: float) -> list[float]:
    """Return 0 and the one or two largest round values each side that fit."""
    power = 10.0 ** math.floor(math.log10(extent))
    step = max(s * power for s in (0.5, 1, 2, 5) if s * power <= extent * 0.95)
    steps = 2 if 2 * step <= extent * 0.95 else 1
    return [n * step for n in range(-steps, steps + 1)]


def _signed(value: float) -> str:
    size = f"{abs(value):.3g}"
    return "0" if not value else f"{'−' if value < 0 else '+'}{size}"


def share_row(interval: Interval) -> tuple[float, float, float] | None:
    """Return low, estimate and high of a share as percentages of the width from 0 to 1."""
    if not is_finite(interval):
        return None
    return share_place(interval.low), share_place(interval.estimate), share_place(interval.high)


def share_place(value: float) -> float:
    """Return where a share is on the same axis as `share_row`."""
    return round(_MARGIN + min(max(value, 0.0), 1.0) * (100 - 2 * _MARGIN), 3)


def funnel_bars(funnel: Funnel) -> tuple[Bar, ...]:
    """Return the way from candidates to pairs, every loss by its reason."""
    first, *lost, accepted, surplus, pairs = funnel.steps()
    stages = [(*first, "total"), *((*step, "lost") for step in lost)]
    # Counts that do not add up are shown, not hidden in a bar.
    if unexplained := first[1] - accepted[1] - sum(count for _, count in lost):
        stages.append(("Not accounted for", unexplained, "lost"))
    stages += [(*accepted, "kept"), (*surplus, "spare"), (*pairs, "kept")]
    return _bars(stages, funnel.candidates)


def principle_bars(funnel: Funnel, names: dict[str, str]) -> tuple[Bar, ...]:
    """Return pairs by principle, under the names of the constitution where they are known."""
    counts = funnel.per_principle
    stages = [(names.get(p, plain(p)), count, "kept") for p, count in counts.items()]
    return _bars(stages, max(counts.values(), default=0))


def _bars(stages: Iterable[tuple[str, int, str]], whole: int) -> tuple[Bar, ...]:
    return tuple(
        Bar(label, count, round(min(100.0, 100 * max(0, count) / max(whole, 1)), 2), kind)
        for label, count, kind in stages
    )
