"""Do a release's numbers come out again? Each against the interval that the release gives for it.

A number is reproduced when the new estimate lies within the released 95% interval. It is not
measurable where the new evaluation has no such number, or has it by another judge or evaluator.

    numbers = compare_numbers(released, found)
    page = reproduction_page(numbers, facts, notes)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from ccai_core.config import Config
from ccai_core.evaluation.results import EvaluationResult, Interval, Metric, Table
from ccai_core.report.sections import Section, SectionPage

Outcome = Literal["reproduced", "not reproduced", "not measurable"]

_SIDES = (("before", "baseline"), ("after", "trained"), ("difference", "difference"))
# The sums of the other numbers: criteria are decided by the measures that are compared anyway.
_DERIVED = ("verdict",)
# Rounding differs by machine; an interval may have no width.
_CLOSE = 1e-9


class Number(Config):
    """One number of the release, and what became of it."""

    name: str = Field(description="Measure or table, and row.")
    which: str = Field(description="Before, after or difference; or the column of a table.")
    released: Interval = Field(description="As the release says.")
    found: float | None = Field(description="The new estimate, if there is one.")
    n: tuple[int, int] | None = Field(None, description="Items then and now, where counted.")
    outcome: Outcome = Field(description="Whether it came out again.")
    why: str = Field("", description="Why it is not measurable.")


class Reproduction(Config):
    """All numbers of a release, made again."""

    release: str = Field(description="Folder of the release.")
    created: str = Field(description="When it was compared, ISO 8601.")
    command: str = Field(description="The command.")
    numbers: tuple[Number, ...] = Field(description="In the order of the evaluation.")
    notes: tuple[str, ...] = Field((), description="What was not the same this time.")

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many numbers ended how."""
        of_outcome = Counter(number.outcome for number in self.numbers)
        return {
            "reproduced": of_outcome["reproduced"],
            "not reproduced": of_outcome["not reproduced"],
            "not measurable": of_outcome["not measurable"],
        }

    @property
    def passed(self) -> bool:
        """Whether every number came out within its interval."""
        return bool(self.numbers) and self.counts["reproduced"] == len(self.numbers)

    @property
    def headline(self) -> str:
        """Say it in a sentence."""
        counts = self.counts
        return (
            f"{counts['reproduced']} of {len(self.numbers)} numbers are reproduced within the "
            f"release's intervals, {counts['not reproduced']} are not, "
            f"{counts['not measurable']} could not be measured."
        )


def compare_numbers(released: EvaluationResult, found: EvaluationResult) -> tuple[Number, ...]:
    """Return every number of a release that has an interval, with the new one beside it."""
    return (*_of_metrics(released, found), *_of_tables(released, found))


def _of_metrics(released: EvaluationResult, found: EvaluationResult) -> Iterator[Number]:
    metrics = {metric.id: metric for metric in found.metrics}
    for metric in released.metrics:
        new = metrics.get(metric.id)
        why = _not_comparable(metric, new, released, found)
        for which, side in _SIDES:
            value = getattr(new, side).estimate if new and not why else None
            counted = (metric.n, new.n) if new else None
            yield _number(metric.title, which, getattr(metric, side), value, counted, why)


def _not_comparable(
    metric: Metric, new: Metric | None, released: EvaluationResult, found: EvaluationResult
) -> str:
    if new is None:
        return "It was not measured this time."
    if metric.judged != new.judged:
        return "It was rated by another evaluator."
    then, now = (_name(result.judge.model) for result in (released, found))
    if metric.judged and then != now:
        return f"It was judged by {now}, then by {then}."
    return ""


def _of_tables(released: EvaluationResult, found: EvaluationResult) -> Iterator[Number]:
    """Yield the numbers of tables: each before a column Low, by the texts of their rows."""
    tables = {table.id: table for table in found.tables}
    for table in released.tables:
        if table.id in _DERIVED or "Low" not in table.columns[1:]:
            continue
        new = _values(tables[table.id]) if table.id in tables else {}
        for key, interval in _values(table).items():
            value = new.get(key)
            why = "" if value else "It was not measured this time."
            name = f"{table.title}: {', '.join(key)}"
            column = table.columns[table.columns.index("Low") - 1].lower()
            yield _number(name, column, interval, value.estimate if value else None, None, why)


def _values(table: Table) -> dict[tuple[str, ...], Interval]:
    low = table.columns.index("Low")
    found = {}
    for row in table.rows:
        ends = row[low - 1 : low + 2]
        if all(isinstance(each, int | float) for each in ends):
            estimate, lower, upper = (float(str(each)) for each in ends)
            key = tuple(str(each) for each in row[: low - 1] if isinstance(each, str))
            found[key] = Interval(estimate=estimate, low=lower, high=upper)
    return found


def _number(
    name: str,
    which: str,
    released: Interval,
    found: float | None,
    n: tuple[int, int] | None,
    why: str,
) -> Number:
    ends = (released.low, released.high)
    outcome: Outcome = "not measurable"
    if not all(map(math.isfinite, ends)):
        why = why or "The release gives no interval."
    elif found is not None and math.isfinite(found):
        room = _CLOSE * max(1.0, *map(abs, ends))
        within = ends[0] - room <= found <= ends[1] + room
        outcome = "reproduced" if within else "not reproduced"
    else:
        why = why or "It has no value this time."
    return Number(
        name=name, which=which, released=released, found=found, n=n, outcome=outcome, why=why
    )


def reproduction_page(made: Reproduction) -> SectionPage:
    """Return the report of a reproduction."""
    facts = (("Release", made.release), ("Made", made.created), ("Command", made.command))
    by_outcome: tuple[tuple[Outcome, str], ...] = (
        ("not reproduced", "The new estimate lies outside of the released 95% interval."),
        ("not measurable", "There is no new number to compare."),
        ("reproduced", "The new estimate lies within the released 95% interval."),
    )
    sections = [
        Section(outcome.capitalize(), about, _COLUMNS, _rows(made.numbers, outcome))
        for outcome, about in by_outcome
        if made.counts[outcome]
    ]
    return SectionPage("Reproduction", facts, (made.headline,), made.notes, tuple(sections))


_COLUMNS = ("number", "which", "released (95% interval)", "found", "n then, now", "remark")


def _rows(numbers: Sequence[Number], outcome: Outcome) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            number.name,
            number.which,
            f"{_said(number.released.estimate)} "
            f"({_said(number.released.low)} to {_said(number.released.high)})",
            "–" if number.found is None else _said(number.found),
            f"{number.n[0]}, {number.n[1]}" if number.n else "",
            number.why,
        )
        for number in numbers
        if number.outcome == outcome
    )


def _said(value: float) -> str:
    return f"{value:.4g}"


def _name(identity: str) -> str:
    return identity.partition("@")[0]
