"""The methods of a paper, from the settings that the results were really made with.

paragraphs = methods(material, trace, cite)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ccai_core.dataset_card import cell
from ccai_core.paper.material import Material
from ccai_core.paper.references import Citations
from ccai_core.report.page import flatten
from ccai_core.traced import Source, Trace, code, pointer, table

_UNKNOWN = "Not known: {} was not at hand."
# Fingerprints, and what is told in the text.
_NOT_SETTINGS = {"constitution", "parts", "prompts", "shipped_items", "trained_on", "pairs"}


def methods(material: Material, trace: Trace, cite: Citations) -> Iterator[str]:
    """Yield the paragraphs."""
    yield "### Constitution"
    yield from _constitution(material, trace)
    yield "### Preference data"
    yield from _preference_data(material, trace, cite)
    yield "### Training"
    yield from _training(material, trace, cite)
    yield "### Evaluation"
    yield from _evaluation(material, trace, cite)
    yield "### Statistics"
    yield _statistics(cite)


def _constitution(material: Material, trace: Trace) -> Iterator[str]:
    where = pointer("inputs", "constitution")
    used = trace.text(material.evaluation_record, where, "not known")
    if material.constitution is None:
        yield f"The constitution is known by its fingerprint only: {used}."
        return
    names = ", ".join(cell(principle.name) for principle in material.constitution.principles)
    yield (
        f"“{cell(material.constitution.name)}” (fingerprint {used}), whose principles are: {names}."
    )


def _preference_data(material: Material, trace: Trace, cite: Citations) -> Iterator[str]:
    if not material.pairs_record.is_there:
        yield _UNKNOWN.format("the record of the preference data")
        return
    model = code(str(material.pairs_record.at("/inputs/model")))
    yield (
        f"After {cite('bai2022')}, a model ({model}) answers a prompt, criticises its answer under "
        "one principle, and revises it. The answer becomes the rejected, the revision the chosen "
        "one of a pair. Pairs in which anything failed, was cut off or did not pass a filter are "
        "dropped and counted; none is repaired."
    )
    sources = [
        (
            trace.text(material.pairs, f"{where}/name"),
            trace.text(material.pairs, f"{where}/licence"),
        )
        for where in _places(material.pairs, "/sources")
    ]
    if sources:
        yield table(("prompts from", "licence"), sources)
    yield _settings(material.pairs_record, "/inputs/config", trace)


def _training(material: Material, trace: Trace, cite: Citations) -> Iterator[str]:
    record = material.training_record
    if not record.is_there:
        yield _UNKNOWN.format("the record of the training")
        return
    config = record.at("/inputs/config") or {}
    how = f"LoRA ({cite('hu2021')}), merged" if config.get("method") == "lora" else "all weights"
    before = " after a supervised stage on chosen answers" if material.sft.is_there else ""
    yield (
        f"{code(str(material.training.at('/base_model') or record.at('/inputs/model')))} was "
        f"trained with direct preference optimisation ({cite('rafailov2023')}), {how}{before}. "
        "Some prompts are held out; all pairs of a prompt are on the same side."
    )
    yield _settings(record, "/inputs/config", trace)


def _evaluation(material: Material, trace: Trace, cite: Citations) -> Iterator[str]:
    result, record = material.result, material.evaluation_record
    if result is None:
        yield _UNKNOWN.format("the evaluation")
        return
    yield (
        f"{code(result.trained_model)} and {code(result.baseline_model)} answered the same "
        f"held-out prompts (suite {code(result.suite)}). What was trained on, in its words or "
        "nearly, is refused. Both have the same settings, and weights in single precision."
    )
    method = trace.text(material.evaluation, "/judge/method")
    yield (
        f"Judge: {code(result.judge.model)}, by {method}; its lean to Yes or No is taken off "
        f"({cite('zhao2021')}). It was calibrated on shipped answers whose quality is known."
    )
    ids = {metric.id.partition(".")[0] for metric in result.metrics}
    if "benchmark" in ids:
        yield (
            f"AILuminate-style grades ({cite('ghosh2025')}) are unofficial: another evaluator than "
            "MLCommons' gave the verdicts, unless a table says otherwise."
        )
    if "helpfulness" in ids:
        yield f"Helpfulness is MT-Bench ({cite('zheng2023')})."
    if "cooperation" in ids:
        yield f"Cooperation is an iterated prisoner's dilemma, after {cite('laukkonen2025')}."
    rows = [
        (
            trace.text(material.evaluation, pointer("metrics", place, "title")),
            trace.text(material.evaluation, pointer("metrics", place, "description")),
            "yes" if metric.judged else "no",
        )
        for place, metric in enumerate(result.metrics)
    ]
    yield table(("measure", "how", "judged"), rows)
    if record.is_there:
        yield _settings(record, "/inputs", trace)


def _statistics(cite: Citations) -> str:
    return (
        "Everything is paired by item; intervals are 95%, tests two-sided. Shares have exact "
        f"intervals ({cite('clopper1934')}), their differences adjusted Wald intervals for paired "
        f"data ({cite('bonett2012')}) and McNemar's exact test ({cite('mcnemar1947')}). Means and "
        f"their differences have bootstrap intervals ({cite('efron1979')}) with expanded "
        f"percentiles ({cite('hesterberg2015')}) and a sign-flip randomisation test. p-values are "
        f"corrected for the number of measures ({cite('holm1979')}). Better or worse is said only "
        "where the interval of the difference excludes zero."
    )


def _places(source: Source, where: str) -> list[str]:
    return [f"{where}/{place}" for place in range(len(source.at(where) or []))]


def _settings(source: Source, where: str, trace: Trace) -> str:
    """Return a table of settings, each linked."""
    settings = source.at(where)
    if not isinstance(settings, Mapping):
        return _UNKNOWN.format("what it was set to")
    shown = {key: value for key, value in settings.items() if key not in _NOT_SETTINGS}
    rows = [
        (code(name), trace.value(source, where + pointer(*name.split(".")), _plain, "unset"))
        for name, _ in flatten(shown)
    ]
    return table(("setting", "value"), rows)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
