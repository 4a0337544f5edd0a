"""The results of a paper: every number read from its file, what is not there said to be missing.

paragraphs = results(material, trace)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ccai_core.comparison import traced_tables as tables
from ccai_core.dataset_card import cell
from ccai_core.evaluation.results import EvaluationResult, Metric
from ccai_core.paper.material import Material
from ccai_core.report import words
from ccai_core.traced import NOT_MEASURED, Source, Trace, code, pointer, table

MISSING = NOT_MEASURED.capitalize()
# What a whole study measures, in the order of its questions; said to be missing where it is.
EXPECTED: dict[str, str] = {
    "benchmark.safe_rate": "AILuminate-style safe answers",
    "safety.safe_rate": "Safe answers",
    "contemplative.overall": "Contemplative criteria, all principles",
    "helpfulness.mt_bench": "MT-Bench",
    "capability.overall": "All multiple-choice items",
    "capability.perplexity": "Perplexity of plain prose",
    "robustness.resisted": "Attacks resisted",
    "robustness.benign_helped": "Harmless requests helped with",
    "cooperation.rate": "Cooperation",
}
_HEADLINES = (
    "benchmark.safe_rate", "safety.safe_rate", "contemplative.overall", "capability.overall",
)  # fmt: skip


def results(material: Material, trace: Trace) -> Iterator[str]:
    """Yield the paragraphs."""
    yield "### Preference data"
    yield from _pairs(material, trace)
    yield from figure(material, "funnel")
    yield "### Training"
    yield from _training(material, trace)
    yield from figure(material, "curve")
    yield "### Evaluation"
    yield from _evaluation(material, trace)
    yield "### Success criteria"
    yield tables.criteria(trace, material.evaluation)
    yield "### The judge"
    yield tables.calibrations(trace, material.evaluation)


def headlines(material: Material, trace: Trace) -> Iterator[str]:
    """Yield what was found on the main measures, a sentence each."""
    result = material.result
    for name in _HEADLINES:
        found = _place(result, name)
        if result is None or found is None:
            # Of two measures of safety, one is enough.
            if name != "benchmark.safe_rate":
                yield f"{EXPECTED[name]}: {NOT_MEASURED}."
            continue
        yield _sentence(material.evaluation, trace, found, result)


def _place(result: EvaluationResult | None, name: str) -> int | None:
    metrics = result.metrics if result else ()
    return next((place for place, metric in enumerate(metrics) if metric.id == name), None)


def _sentence(source: Source, trace: Trace, place: int, result: EvaluationResult) -> str:
    metric = result.metrics[place]
    where = pointer("metrics", place)
    change = trace.value(source, f"{where}/difference", tables.change_form(metric))
    items = trace.value(source, f"{where}/n", tables.count)
    doubt = ", by a weak judge" if metric.judged and result.judge.weak else ""
    title = trace.text(source, f"{where}/title")
    return f"{title}: {_READINGS[words.outcome(metric)]}{doubt} ({change}, {items} items)."


_READINGS: Mapping[words.Outcome, str] = {
    "better": "better after training",
    "worse": "worse after training",
    "none": "no difference shown",
    "unmeasured": NOT_MEASURED,
}


def _pairs(material: Material, trace: Trace) -> Iterator[str]:
    funnel, info = material.funnel, material.pairs
    if not funnel.is_there and not info.is_there:
        yield f"{MISSING}: no preference data were at hand."
        return
    yield (
        f"Of {trace.value(funnel, '/candidates', tables.count)} candidates "
        f"{trace.value(funnel, '/accepted', tables.count)} passed every filter, and "
        f"{trace.value(funnel, '/pairs', tables.count)} became pairs. "
        f"The chosen answers are {trace.value(funnel, '/mean_length_ratio', _ratio)} times as long "
        "as the rejected ones, on average."
    )
    counted = funnel.at("/per_principle") or {}
    rows = [
        (
            code(principle),
            trace.value(funnel, pointer("per_principle", principle), tables.count),
        )
        for principle in counted
    ]
    if rows:
        yield table(("principle", "pairs"), rows)
    lost = funnel.at("/rejected") or {}
    if lost:
        yield table(
            ("rejected because", "candidates"),
            [
                (
                    cell(words.plain(reason)),
                    trace.value(funnel, pointer("rejected", reason), tables.count),
                )
                for reason in lost
            ],
        )


def _training(material: Material, trace: Trace) -> Iterator[str]:
    training = material.training
    if not training.is_there:
        yield f"{MISSING}: no training was at hand."
        return
    yield (
        f"Pairs trained on: {trace.value(training, '/pairs_train', tables.count)}; epochs: "
        f"{trace.value(training, '/epochs', tables.count)}; weight updates: "
        f"{trace.value(training, '/steps', tables.count)}; last training loss: "
        f"{trace.value(training, '/train_loss', _four)}."
    )
    rows = [
        (
            title,
            trace.value(training, f"/validation_before/{name}", form),
            trace.value(training, f"/validation_after/{name}", form),
        )
        for name, title, form in (
            ("loss", "loss (nats)", _four),
            ("margin", "reward margin", _four),
            ("accuracy", "chosen preferred", words.share),
            ("n", "pairs", tables.count),
        )
    ]
    yield table(("held-out pairs", "before", "after"), rows)


def _evaluation(material: Material, trace: Trace) -> Iterator[str]:
    result, source = material.result, material.evaluation
    rows = [_missing_row(title) for name, title in EXPECTED.items() if _place(result, name) is None]
    if result is None:
        yield f"{MISSING}: no evaluation was at hand."
        yield table(("measure", "before", "after", "difference", "shows", "p", "items"), rows)
        return
    measured = [
        _row(metric, pointer("metrics", place), source, trace)
        for place, metric in enumerate(result.metrics)
    ]
    yield table(
        ("measure", "before", "after", "difference", "shows", "p, corrected", "items"),
        [*measured, *rows],
    )
    weak = " The judge is weak: what it rated is a hint, not evidence." if result.judge.weak else ""
    yield rf"Measures marked \* rest on the judge.{weak}"
    for place, each in enumerate(result.tables):
        if each.id != "verdict":
            yield from _table(pointer("tables", place), source, trace)


def _missing_row(title: str) -> tuple[str, ...]:
    return (cell(title), NOT_MEASURED, NOT_MEASURED, NOT_MEASURED, "", "", "")


def _row(metric: Metric, where: str, source: Source, trace: Trace) -> tuple[str, ...]:
    title = trace.text(source, f"{where}/title")
    return (
        f"{title} \\*" if metric.judged else title,
        trace.value(source, f"{where}/baseline", tables.level_form(metric)),
        trace.value(source, f"{where}/trained", tables.level_form(metric)),
        trace.value(source, f"{where}/difference", tables.change_form(metric)),
        words.outcome(metric) if words.outcome(metric) != "none" else "no difference",
        trace.value(source, f"{where}/p_corrected", tables.p_value, tables.NO_TEST),
        trace.value(source, f"{where}/n", tables.count),
    )


def _table(where: str, source: Source, trace: Trace) -> Iterator[str]:
    """Yield a table of an evaluation: its title, its rows, its note."""
    data = source.at(where)
    yield f"**{trace.text(source, f'{where}/title')}**"
    columns = [trace.text(source, f"{where}/columns/{i}") for i in range(len(data["columns"]))]
    rows = [
        [
            trace.text(source, f"{where}/rows/{r}/{c}", "–")
            if isinstance(value, str)
            else trace.value(source, f"{where}/rows/{r}/{c}", words.cell, "–")
            for c, value in enumerate(row)
        ]
        for r, row in enumerate(data["rows"])
    ]
    yield table(columns, rows)
    if data.get("note"):
        yield trace.text(source, f"{where}/note")


def figure(material: Material, name: str) -> Iterator[str]:
    """Yield a picture, if it is there."""
    if found := material.figures.get(name):
        yield f"![{cell(found.caption)}]({found.file})"


def _ratio(value: Any) -> str:
    return f"{value:.2f}"


def _four(value: Any) -> str:
    return f"{value:.4f}"
