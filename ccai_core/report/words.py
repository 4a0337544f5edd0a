"""Numbers as words, and the headline: what may be claimed, and what may not.

A group's question is answered by the first metric of the group in the suite's order, so that
nothing is picked after the fact. Nothing is called better or worse unless the 95% interval of the
difference excludes 0, and a weak judge is named in the same breath.

    for line in headline(result):
        print(line.question, line.verdict, line.detail)
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ccai_core.evaluation.results import (
    Calibration,
    EvaluationResult,
    Group,
    Interval,
    JudgeCard,
    Metric,
    Unit,
)

Outcome = Literal["better", "worse", "none", "unmeasured"]

GROUPS: dict[Group, str] = {
    "safety": "Safety",
    "contemplative": "Contemplative qualities",
    "capability": "Capability",
    "helpfulness": "Helpfulness",
    "robustness": "Robustness",
    "cooperation": "Cooperation",
}
# Asked by every suite; the other questions only where a suite measures them.
_ALWAYS: tuple[Group, ...] = ("safety", "contemplative", "capability")
_QUESTIONS: dict[Group, str] = {
    "safety": "Is it safer?",
    "contemplative": "Is it wiser?",
    "capability": "Is it no less capable?",
    "helpfulness": "Is it as helpful?",
    "robustness": "Does it stay safe under pressure?",
    "cooperation": "Does it cooperate?",
}
_CLAIMS: dict[tuple[Group, Outcome], str] = {
    ("safety", "better"): "Safer on this measure",
    ("safety", "worse"): "Less safe on this measure",
    ("contemplative", "better"): "Wiser on this measure",
    ("contemplative", "worse"): "Less wise on this measure",
    ("capability", "better"): "More capable on this measure",
    ("capability", "worse"): "Less capable on this measure",
    ("helpfulness", "better"): "More helpful on this measure",
    ("helpfulness", "worse"): "Less helpful on this measure",
    ("robustness", "better"): "More robust on this measure",
    ("robustness", "worse"): "Less robust on this measure",
    ("cooperation", "better"): "More cooperative on this measure",
    ("cooperation", "worse"): "Less cooperative on this measure",
}
NO_DIFFERENCE = "No difference shown at this size"
_DECIMALS = {"share": 1, "probability": 3, "perplexity": 2, "score": 2, "points": 2}
_MOST_DECIMALS = 6


class Scaled(Protocol):
    """What has a unit: a metric, or a measure of several models."""

    @property
    def unit(self) -> Unit:
        """Scale of the values."""


@dataclass(frozen=True)
class Line:
    """The answer to one question; as a string, all of it in one paragraph."""

    question: str
    outcome: Outcome
    verdict: str
    detail: str
    caveats: tuple[str, ...] = ()
    also_worse: tuple[str, ...] = ()
    weak_judge: bool = False

    @property
    def worse(self) -> str:
        """Name what got worse beside the measure that answers the question."""
        if not self.also_worse:
            return ""
        what = "another measure" if len(self.also_worse) == 1 else "other measures"
        return f"Worse on {what} here: {', '.join(self.also_worse)}."

    def __str__(self) -> str:
        parts = (f"{self.question} {self.verdict}.", self.detail, self.worse, *self.caveats)
        return " ".join(filter(None, parts))


def headline(result: EvaluationResult) -> tuple[Line, ...]:
    """Answer the questions as far as the data go."""
    measured = {metric.group for metric in result.metrics}
    return tuple(_line(group, result) for group in GROUPS if group in {*_ALWAYS, *measured})


def _line(group: Group, result: EvaluationResult) -> Line:
    question = _QUESTIONS[group]
    metrics = [metric for metric in result.metrics if metric.group == group]
    if not metrics:
        return Line(question, "unmeasured", "Not measured", "No measure of it was run.")
    first, *others = metrics
    found = outcome(first)
    doubts = judge_doubt(result.judge)
    doubt = doubts if first.judged and found != "unmeasured" else ""
    caveats = [_not_ruled_out(first)] if found == "none" else []
    if doubt:
        caveats.append(f"{doubt} Take this line as a hint, not as evidence.")
    caveats += _others(others, weak_judge=bool(doubts))
    return Line(
        question,
        found,
        _verdict(group, found, bool(doubt)),
        _detail(first, found),
        tuple(caveats),
        also_worse=tuple(
            f"{metric.title} (by a weak judge)" if doubts and metric.judged else metric.title
            for metric in others
            if outcome(metric) == "worse"
        ),
        weak_judge=bool(doubt),
    )


def _verdict(group: Group, found: Outcome, weak_judge: bool) -> str:
    if found == "unmeasured":
        return "Not measured"
    if found == "none":
        return NO_DIFFERENCE
    return f"Rated {found} by a weak judge" if weak_judge else _CLAIMS[group, found]


def _detail(metric: Metric, found: Outcome) -> str:
    if found == "unmeasured":
        return f"{metric.title}: no item gave a number; excluded: {excluded(metric)}."
    before, after = (level(i.estimate, i, metric) for i in (metric.baseline, metric.trained))
    parts = [f"95% interval {span(metric.difference, metric, signed=True)}", f"n = {metric.n}"]
    if metric.p_value is not None:
        parts.append(f"p {p_value(metric.p_value, equals='= ')}")
    change = signed(metric.difference.estimate, metric.difference, metric)
    better = "" if metric.higher_is_better else ", lower is better"
    return f"{metric.title}: {before} → {after}; {change} ({', '.join(parts)}{better})."


def _not_ruled_out(metric: Metric) -> str:
    low, high = metric.difference.low, metric.difference.high
    loss, gain = (low, high) if metric.higher_is_better else (high, low)
    parts = [
        f"a {name} of up to {magnitude(value, metric.difference, metric)}"
        for name, value in (("loss", loss), ("gain", gain))
        if value
    ]
    return f"Not ruled out: {' or '.join(parts)}." if parts else "Every item came out the same."


def _others(metrics: Sequence[Metric], weak_judge: bool) -> list[str]:
    """Count the other measures; those that got worse are named in a line of their own."""
    names: dict[Outcome, str] = {
        "better": "better",
        "none": "without a difference shown",
        "unmeasured": "not measured",
    }
    found = Counter(outcome(metric) for metric in metrics)
    counts = ", ".join(f"{found[key]} {name}" for key, name in names.items() if found[key])
    judged = weak_judge and any(metric.judged for metric in metrics)
    by = " (a weak judge’s)" if judged else ""
    return [f"Other measures here{by}: {counts}."] if counts else []


def outcome(metric: Metric) -> Outcome:
    """Say what the interval of the difference shows."""
    difference = metric.difference
    if metric.n == 0 or not is_finite(difference):
        return "unmeasured"
    if difference.low <= 0 <= difference.high:
        return "none"
    return "better" if (difference.low > 0) == metric.higher_is_better else "worse"


def is_finite(interval: Interval) -> bool:
    """Whether an interval has three real numbers."""
    return all(map(math.isfinite, (interval.estimate, interval.low, interval.high)))


def judge_doubt(judge: JudgeCard) -> str:
    """Say why the judge's numbers cannot carry a claim; nothing if they can."""
    if not judge.calibrations:
        return "The judge is weak: it was not calibrated on items whose answer is known."
    if not judge.weak:
        return ""
    worst = min(judge.calibrations, key=lambda c: c.accuracy.estimate - c.chance)
    reading = f"“{worst.task}”: {share(worst.accuracy.estimate)} right, guessing gives "
    interval = f"{share(worst.accuracy.low)} to {share(worst.accuracy.high)}"
    return (
        f"The judge is weak (at its worst, {reading}{share(worst.chance)}; "
        f"95% interval {interval}, n = {worst.n})."
    )


def calibration_reading(calibration: Calibration) -> str:
    """Compare one calibration with guessing."""
    if calibration.n == 0 or not is_finite(calibration.accuracy):
        return "not measured"
    if calibration.accuracy.low > calibration.chance:
        return "better than guessing"
    if calibration.accuracy.high < calibration.chance:
        return "worse than guessing"
    return "not shown to be better than guessing"


def share(value: float) -> str:
    """Return 0.5 as '50.0%'."""
    return f"{100 * value:.1f}%" if math.isfinite(value) else "–"


def level(value: float, interval: Interval, metric: Scaled) -> str:
    """Return a value of one model in the metric's unit."""
    text = _number(value, interval, metric)
    return f"{text}%" if metric.unit == "share" and text != "–" else text


def signed(value: float, interval: Interval, metric: Scaled) -> str:
    """Return a difference with its sign and unit."""
    text = _number(value, interval, metric, plus=True)
    return f"{text} points" if metric.unit == "share" and text != "–" else text


def magnitude(value: float, interval: Interval, metric: Scaled) -> str:
    """Return the size of a difference with its unit."""
    return signed(abs(value), interval, metric).removeprefix("+")


def span(interval: Interval, metric: Scaled, signed: bool = False) -> str:
    """Return 'low to high' in the metric's unit, without repeating the unit."""
    ends = (_number(end, interval, metric, plus=signed) for end in (interval.low, interval.high))
    return " to ".join(ends)


def p_value(value: float | None, equals: str = "") -> str:
    """Return a p-value to three places."""
    if value is None or not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{equals}{value:.3f}"


def excluded(metric: Metric) -> str:
    """Return '3 (2 unparseable, 1 truncated)', or '0'."""
    total = sum(metric.excluded.values())
    reasons = ", ".join(f"{count} {plain(why)}" for why, count in metric.excluded.items() if count)
    return f"{total} ({reasons})" if reasons else f"{total}"


def cell(value: str | float | None) -> str:
    """Return a value of a table: counts as they are, other numbers to three places."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value == round(value) and not 0 < abs(value) < 2 else f"{value:.3f}"


def plain(name: str) -> str:
    """Return a key as words: 'too_short' as 'too short'."""
    return name.replace("_", " ")


def reflow(text: str) -> str:
    """Undo the line breaks inside a paragraph of markdown; paragraphs and list items stay."""
    return re.sub(r"(?<!\n)\n(?!\n|\s*([-*+]|\d+[.)])\s)", " ", text)


def _number(value: float, interval: Interval, metric: Scaled, plus: bool = False) -> str:
    """Format as precisely as the interval is wide, never showing 0 for what is not 0."""
    if not math.isfinite(value):
        return "–"
    scale = 100 if metric.unit == "share" else 1
    scaled, places = value * scale, _DECIMALS[metric.unit]
    while places < _MOST_DECIMALS and any(
        end and not round(end * scale, places)
        for end in (interval.low, interval.estimate, interval.high)
        if math.isfinite(end)
    ):
        places += 1
    rounded = round(scaled, places) + 0.0  # turns -0.0 into 0.0
    sign = "−" if rounded < 0 else "+" if plus and rounded else ""
    return f"{sign}{abs(rounded):,.{places}f}"
