"""What comes after one model's results: other models, sizes, and what people thought.

paragraphs = other_models(material, trace), expert_review(material, trace)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ccai_core.comparison import traced_tables as tables
from ccai_core.dataset_card import cell
from ccai_core.evaluation.results import Interval
from ccai_core.human_evaluation.results import PREFERENCE, HumanEvaluation
from ccai_core.human_evaluation.words import (
    number,
    question_title,
    reading_of_alpha,
    share,
    signed,
    with_interval,
)
from ccai_core.paper.material import Material, read_as
from ccai_core.paper.results import MISSING, figure
from ccai_core.traced import Source, Trace, code, pointer, table


def other_models(material: Material, trace: Trace) -> Iterator[str]:
    """Yield the comparison, a table a measure, and the pictures."""
    comparison = material.comparison
    if comparison is None:
        yield f"{MISSING}: no comparison with other models was at hand."
        return
    for place, measure in enumerate(comparison.comparison.measures):
        yield f"**{trace.text(comparison.own, pointer('measures', place, 'title'))}**"
        yield tables.levels(trace, comparison, place)
        if measure.differences:
            yield tables.differences(trace, comparison, place)
    for name in ("forest", "radar"):
        yield from figure(material, name)


def over_size(material: Material, trace: Trace) -> Iterator[str]:
    """Yield what changes with model size."""
    found = tables.trends(trace, material.comparison) if material.comparison else None
    if found is None:
        yield f"{MISSING}: a trend needs evaluations of at least three sizes."
        return
    yield (
        "The slope is the change for ten times as many weights, by a line in their logarithm; the "
        "worst miss is how far the worst size is from the line through the others. Intervals draw "
        "the same items for all sizes: they are about these models."
    )
    yield found
    yield from figure(material, "scaling")


def expert_review(material: Material, trace: Trace) -> Iterator[str]:
    """Yield what reviewers preferred, how they rated, and how far they agree."""
    source = material.review
    review = read_as(source, HumanEvaluation)
    if review is None:
        yield f"{MISSING}: no expert review was at hand."
        return
    for place in range(len(review.notes)):
        yield trace.text(source, pointer("notes", place))
    if not review.win_rates and not review.ratings:
        yield f"{MISSING}: no judgement of a reviewer counted."
        return
    yield _preferences(review, source, trace)
    if review.ratings:
        yield _ratings(review, source, trace)
    yield _agreement(review, source, trace)
    if review.judge:
        same = trace.value(source, "/judge/same", _with(share))
        compared = trace.value(source, "/judge/compared", tables.count)
        yield f"The judge prefers what people prefer in {same} of {compared} pairs of answers."


def _preferences(review: HumanEvaluation, source: Source, trace: Trace) -> str:
    rows = []
    for place, win in enumerate(review.win_rates):
        where = pointer("win_rates", place)
        counts = [trace.value(source, f"{where}/{n}", str) for n in ("wins", "ties", "losses")]
        rate = trace.value(source, f"{where}/rate", _with(share))
        rows.append((code(win.model), code(win.other), rate, *counts))
    return table(("model", "against", "preferred", "won", "equal", "lost"), rows)


def _ratings(review: HumanEvaluation, source: Source, trace: Trace) -> str:
    rows = [
        (
            cell(question_title(each.question)),
            code(each.model),
            trace.value(source, pointer("ratings", place, "mean"), _with(number)),
            trace.value(source, pointer("ratings", place, "n"), tables.count),
        )
        for place, each in enumerate(review.ratings)
    ]
    rows += [
        (
            cell(question_title(each.question)),
            f"{code(each.model)} − {code(each.other)}",
            trace.value(source, pointer("differences", place, "difference"), _with(signed)),
            "",
        )
        for place, each in enumerate(review.differences)
    ]
    return table(("question", "model", "mean rating, or difference", "ratings"), rows)


def _agreement(review: HumanEvaluation, source: Source, trace: Trace) -> str:
    rows = [
        (
            "Preference" if each.question == PREFERENCE else cell(question_title(each.question)),
            trace.value(source, pointer("agreement", place, "alpha"), _with(number), "–"),
            reading_of_alpha(each.alpha),
            trace.value(source, pointer("agreement", place, "judgements"), tables.count),
        )
        for place, each in enumerate(review.agreement)
    ]
    return table(("question", "Krippendorff’s alpha", "reading", "judgements"), rows)


def _with(form: Any) -> Any:
    return lambda value: with_interval(Interval.model_validate(value), form)
