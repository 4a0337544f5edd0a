"""A comparison in sentences: nothing is called better or worse unless the numbers say so.

Better or worse needs a 95% interval that excludes 0. Where that does not hold once the p-value is
corrected for the number of tests, the sentence says so.

    for line in headline(comparison):
        print(line)
"""

from __future__ import annotations

from collections.abc import Iterator

from ccai_core.comparison.results import Comparison, Difference, Measure
from ccai_core.report import words

_ALPHA = 0.05


def headline(comparison: Comparison) -> tuple[str, ...]:
    """Return a sentence for each trained model and question, by the first measure of the group."""
    return tuple(_lines(comparison))


def firsts(comparison: Comparison) -> list[Measure]:
    """Return the first measure of each group, which answers the group's question."""
    found = {measure.group: measure for measure in reversed(comparison.measures)}
    return [measure for measure in comparison.measures if found[measure.group] is measure]


def _lines(comparison: Comparison) -> Iterator[str]:
    weak = comparison.judge is not None and comparison.judge.weak
    for measure in firsts(comparison):
        for difference in measure.differences:
            if difference.own:
                doubt = " (by a weak judge)" if weak and measure.judged else ""
                yield (
                    f"{measure.title}: {difference.model} against {difference.against}: "
                    f"{reading(difference, measure)}{doubt}, {change(difference, measure)}, "
                    f"n = {difference.n}."
                )


def reading(difference: Difference, measure: Measure) -> str:
    """Say what a difference shows."""
    interval = difference.difference
    if not words.is_finite(interval):
        return "not measured"
    if interval.low <= 0 <= interval.high:
        return "no difference shown"
    better = (interval.low > 0) == measure.higher_is_better
    corrected = difference.p_corrected
    enough = corrected is None or corrected < _ALPHA
    return ("better" if better else "worse") + ("" if enough else ", not after correction")


def change(difference: Difference, measure: Measure) -> str:
    """Return '+12.0 points (3.0 to 21.0)'."""
    interval = difference.difference
    return (
        f"{words.signed(interval.estimate, interval, measure)} "
        f"({words.span(interval, measure, signed=True)})"
    )
