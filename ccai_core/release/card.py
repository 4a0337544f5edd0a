"""The card of a released model: what it is, what it can and cannot do, how well, and by what.

Hugging Face's format: YAML for programs (`model-index` with every measure and its interval), then
Markdown for people. Whatever comes from data is escaped; no prompt is quoted.

    write_whole(folder / "README.md", model_card(parts, terms, counts, versions))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from huggingface_hub import EvalResult, ModelCardData
from pydantic import Field

from ccai_core.config import Config
from ccai_core.dataset_card import cell, table
from ccai_core.evaluation.results import Interval, Metric
from ccai_core.evaluation.verdict import verdict_table
from ccai_core.release.parts import Parts


class Terms(Config):
    """What the card says that no artifact knows."""

    name: str = Field(min_length=1, description="What the model is called.")
    licence: str = Field(
        min_length=1, description="Licence of the weights, as the hub spells it: apache-2.0."
    )
    base_model: str = Field(
        "", description="Hub id of the model before training; unset: as the training names it."
    )
    gpu_hours: float | None = Field(
        None, ge=0, description="GPU hours of all that led to it; unset: said to be unknown."
    )
    force: str = Field(
        "", description="Reason to release although success criteria are not shown to be met."
    )


def model_card(
    parts: Parts, terms: Terms, pairs: Mapping[str, int], versions: Mapping[str, str]
) -> str:
    """Return the README.md of a release."""
    front = ModelCardData(
        base_model=_base(parts, terms),
        license=terms.licence,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["constitutional-ai", "dpo", "ccai"],
        model_name=terms.name,
        eval_results=[_entry(metric, parts) for metric in parts.evaluation.metrics if metric.n],
    )
    sections = [
        f"---\n{front.to_yaml()}\n---",
        f"# {cell(terms.name)}",
        *_warnings(parts, terms),
        "## What it is",
        _what(parts, terms),
        "## Intended use and limits",
        *_use(parts),
        "## Evaluation",
        *_evaluation(parts),
        "## Training",
        _training(parts, terms, pairs),
        "## Constitution",
        _constitution(parts),
        "## Check it, and make it again",
        _again(),
        "## Versions",
        table(("package", "version"), versions.items()),
    ]
    return "\n\n".join(sections) + "\n"


def _base(parts: Parts, terms: Terms) -> str:
    return terms.base_model or parts.base_model.partition("@")[0]


def _entry(metric: Metric, parts: Parts) -> EvalResult:
    value = metric.trained
    return EvalResult(
        task_type="text-generation",
        dataset_type="ccai",
        dataset_name=f"CCAI suite {parts.evaluation.suite}",
        metric_type=metric.id,
        metric_name=metric.title,
        metric_value=value.estimate,
        metric_args={
            "interval_95": [value.low, value.high],
            "n": metric.n,
            "unit": metric.unit,
            "baseline": metric.baseline.estimate,
            "difference_95": [metric.difference.low, metric.difference.high],
        },
    )


def _warnings(parts: Parts, terms: Terms) -> Iterator[str]:
    if gates := parts.failed_gates:
        lines = "\n".join(f"> - {cell(gate)}" for gate in gates)
        yield (
            "> **Released although success criteria are not shown to be met.**\n"
            f"> Reason: {cell(terms.force)}\n>\n{lines}"
        )
    if parts.evaluation.judge.weak:
        yield (
            "> **The judge is weak.** Measures that it rated are hints, not evidence: on items "
            "whose answer is known it is not reliably right."
        )
    yield (
        "> **Content warning.** The model was evaluated on, and may have been trained to decline, "
        "harmful requests. Files of this release can hold such text."
    )


def _what(parts: Parts, terms: Terms) -> str:
    training = parts.training
    how = {"full": "all weights", "lora": "LoRA, merged"}[training.method]
    return (
        f"{cell(_base(parts, terms))} trained with direct preference optimisation ({how}) on "
        f"{training.pairs_train} pairs of answers: each rejected one is a model's own, each chosen "
        f"one its revision under one principle of “{cell(parts.constitution.name)}”."
    )


def _use(parts: Parts) -> Iterator[str]:
    yield (
        "For research on constitutional training and on how it is evaluated. Not for advice that "
        "people rely on (medical, legal, financial), and not for decisions about people."
    )
    yield (
        "It shares what its base model lacks: it states falsehoods, carries biases, and was "
        "checked for safety only as far as the table below says. What is not there was not "
        "measured."
    )
    yield "\n".join(f"- {cell(note)}" for note in parts.evaluation.notes)


def _evaluation(parts: Parts) -> Iterator[str]:
    result = parts.evaluation
    yield (
        f"Suite {cell(result.suite)}, this model against {cell(result.baseline_model)} on the same "
        f"held-out items, judged by {cell(result.judge.model)}. Intervals are 95%. All of it is in "
        "`evaluation/evaluation.json`."
    )
    rows = [
        (
            metric.title + (" (judged)" if metric.judged else ""),
            _number(metric.baseline),
            _number(metric.trained),
            _number(metric.difference),
            metric.n,
        )
        for metric in result.metrics
    ]
    yield table(("measure", "before", "after", "difference", "n"), rows)
    criteria = verdict_table(result.metrics, result.judge.weak)
    yield table(
        ("success criterion", "verdict", "why"),
        [(row[0], row[1], row[-1]) for row in criteria.rows],
    )


def _training(parts: Parts, terms: Terms, pairs: Mapping[str, int]) -> str:
    training = parts.training
    hours = "not recorded" if terms.gpu_hours is None else f"{terms.gpu_hours:g}"
    shown = ", ".join(f"{count} {how}" for how, count in sorted(pairs.items()))
    sources = table(
        ("source of prompts", "licence", "attribution"),
        [(s.name, s.licence, s.attribution) for s in parts.info.sources],
    )
    facts = table(
        ("", ""),
        [
            ("pairs", f"{training.pairs_train} trained on, {training.pairs_validation} held out"),
            ("updates", f"{training.steps} in {training.epochs} epochs, seed {training.seed}"),
            ("held-out pairs", training.verdict),
            ("last process", f"{training.seconds / 3600:.2f} hours on {training.device}"),
            ("GPU hours of all that led to it", hours),
            ("pairs in this release (`training_data.jsonl`)", shown),
        ],
    )
    return (
        f"{facts}\n\n{sources}\n\nPairs whose source may not be passed on, or has no known "
        "licence, are in the file as ids and hashes, without their texts."
    )


def _constitution(parts: Parts) -> str:
    names = "\n".join(f"- {cell(p.name)}" for p in parts.constitution.principles)
    where = f"`constitution.json` (fingerprint {parts.constitution.fingerprint})"
    return f"All of it is in {where}. Its principles:\n\n{names}"


def _again() -> str:
    return (
        "```sh\nsha256sum -c SHA256SUMS        # or: python -m flows.release verify .\n"
        "sh reproduce.sh              # or: python -m flows.reproduce .\n```\n\n`reproduce.sh` "
        "trains and evaluates again by `configs/recipe.json`, and says of every number in "
        "`evaluation/evaluation.json` whether it comes out within its interval. Where pairs are "
        "ids only, or prompts may not be passed on, it says which file to give."
    )


def _number(interval: Interval) -> str:
    return f"{interval.estimate:.3f} ({interval.low:.3f} to {interval.high:.3f})"
