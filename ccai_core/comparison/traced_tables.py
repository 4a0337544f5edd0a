"""Tables of results in which every number links to its source: for the analysis and for papers.

sources = comparison_sources(comparison, folder, root=folder, run=None)
differences(trace, sources, place=0)
criteria(trace, evaluation_source)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ccai_core.comparison.results import Comparison, Difference
from ccai_core.comparison.words import reading
from ccai_core.dataset_card import cell
from ccai_core.evaluation.results import Interval
from ccai_core.report import words
from ccai_core.report.words import Scaled
from ccai_core.traced import (
    NOT_MEASURED,
    Source,
    Trace,
    code,
    pointer,
    read_source,
    run_address,
    table,
)

COMPARISON_FILE = "comparison.json"
NO_TEST = "no test"
_VERDICT = "verdict"


class ComparisonSources(NamedTuple):
    """A comparison and the files that its numbers are from."""

    comparison: Comparison
    own: Source
    """`comparison.json`: what was computed there."""
    evaluations: Sequence[Source]
    """What evaluations found, in the order of `comparison.origins`."""


def comparison_sources(
    comparison: Comparison,
    folder: Path,
    root: Path,
    run: str | None,
    address: str | None = None,
) -> ComparisonSources:
    """Read what a comparison's numbers are from.

    Args:
        comparison: what `comparison.json` says.
        folder: where that file is.
        root: folder of the text that is written.
        run: MLflow run of the comparison.
        address: that run's web address, if it has one.

    Raises:
        DataError: a file is there and cannot be read.
    """
    own = read_source(
        "comparison", folder / COMPARISON_FILE, root, run=run, address=address,
        command=comparison.command,
    )  # fmt: skip
    evaluations = [
        read_source(
            origin.name, folder / origin.file, root, run=origin.run,
            address=run_address(origin.run, origin.experiment, origin.tracking),
            command=origin.command,
        )
        for origin in comparison.origins
    ]  # fmt: skip
    return ComparisonSources(comparison, own, evaluations)


def levels(trace: Trace, sources: ComparisonSources, place: int) -> str:
    """Return one measure of every model."""
    measure = sources.comparison.measures[place]
    rows = []
    for level in measure.levels:
        source = sources.evaluations[level.origin]
        beside = f"{level.pointer.rpartition('/')[0]}/n"
        value = trace.value(source, level.pointer, level_form(measure))
        rows.append((code(level.model), value, trace.value(source, beside, count)))
    rows += [(code(label), NOT_MEASURED, "") for label in measure.missing]
    return table(("model", "value", "items"), rows)


def differences(trace: Trace, sources: ComparisonSources, place: int) -> str:
    """Return the paired differences of one measure."""
    measure = sources.comparison.measures[place]
    rows = []
    for number, each in enumerate(measure.differences):
        here = pointer("measures", place, "differences", number)
        source, where = _origin_of(each, sources, here)
        rows.append(
            (
                code(each.model),
                code(each.against),
                trace.value(source, where, change_form(measure)),
                reading(each, measure),
                trace.value(sources.own, f"{here}/p_value", p_value, NO_TEST),
                trace.value(sources.own, f"{here}/p_corrected", p_value, NO_TEST),
                trace.value(sources.own, f"{here}/n", count),
            )
        )
    return table(("model", "minus", "difference", "shows", "p", "corrected", "items"), rows)


def _origin_of(each: Difference, sources: ComparisonSources, here: str) -> tuple[Source, str]:
    """Return where a difference was computed: in an evaluation, or in the comparison."""
    if each.origin is None:
        return sources.own, f"{here}/difference"
    return sources.evaluations[each.origin], each.pointer


def trends(trace: Trace, sources: ComparisonSources) -> str | None:
    """Return the lines over model size; none where there are too few sizes."""
    rows = []
    for place, measure in enumerate(sources.comparison.measures):
        for number, trend in enumerate(measure.trends):
            here = pointer("measures", place, "trends", number)
            miss = _single_form(measure, trend.slope)
            rows.append(
                (
                    cell(measure.title),
                    trend.series,
                    trace.value(sources.own, f"{here}/slope", change_form(measure)),
                    trace.value(sources.own, f"{here}/worst_miss", miss),
                    trace.value(sources.own, f"{here}/points", lambda points: str(len(points))),
                )
            )
    return table(("measure", "models", "slope", "worst miss", "sizes"), rows) if rows else None


def criteria(trace: Trace, source: Source) -> str:
    """Return the success criteria with their verdicts, as an evaluation gives them."""
    tables = source.at("/tables") or []
    place = next((i for i, each in enumerate(tables) if each.get("id") == _VERDICT), None)
    if place is None:
        return f"{NOT_MEASURED.capitalize()}: there is no verdict on the success criteria."
    rows = []
    for number, row in enumerate(tables[place]["rows"]):
        here = pointer("tables", place, "rows", number)
        found = trace.value(source, here, _found) if row[3] is not None else NOT_MEASURED
        rows.append((trace.value(source, f"{here}/0", str), cell(row[1]), found))
    return table(("criterion", "verdict", "found"), rows)


def _found(row: Sequence[Any]) -> str:
    _, _, _, estimate, low, high, *_ = row
    return f"{estimate:.3f} ({low:.3f} to {high:.3f})"


def calibrations(trace: Trace, source: Source) -> str:
    """Return how often the judge is right where that is known."""
    found = source.at("/judge/calibrations") or []
    rows = [
        (
            trace.value(source, f"{here}/task", str),
            trace.value(source, f"{here}/accuracy", share_with_interval),
            trace.value(source, f"{here}/chance", words.share),
            trace.value(source, f"{here}/n", count),
        )
        for here in (pointer("judge", "calibrations", place) for place in range(len(found)))
    ]
    if not rows:
        return f"{NOT_MEASURED.capitalize()}: the judge was not calibrated."
    return table(("what it was asked", "right", "guessing", "items"), rows)


def level_form(measure: Scaled) -> Callable[[Any], str]:
    """Return what makes '74.1% (68.3 to 79.4)' of an interval."""

    def form(value: Any) -> str:
        interval = Interval.model_validate(value)
        level = words.level(interval.estimate, interval, measure)
        return f"{level} ({words.span(interval, measure)})"

    return form


def change_form(measure: Scaled) -> Callable[[Any], str]:
    """Return what makes '+6.0 points (+1.7 to +10.4)' of an interval."""

    def form(value: Any) -> str:
        interval = Interval.model_validate(value)
        change = words.signed(interval.estimate, interval, measure)
        return f"{change} ({words.span(interval, measure, signed=True)})"

    return form


def _single_form(measure: Scaled, beside: Interval) -> Callable[[Any], str]:
    return lambda value: words.level(float(value), beside, measure)


def count(value: Any) -> str:
    """Return 1200 as '1,200'."""
    return f"{value:,}"


def p_value(value: Any) -> str:
    """Return a p-value to three places."""
    return words.p_value(value)


def share_with_interval(value: Any) -> str:
    """Return '92.5% (85.7% to 96.7%)'."""
    interval = Interval.model_validate(value)
    ends = f"{words.share(interval.low)} to {words.share(interval.high)}"
    return f"{words.share(interval.estimate)} ({ends})"
