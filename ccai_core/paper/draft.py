"""The draft: title to trace, as Markdown that reads as it is and that pandoc takes.

write_whole(folder / "paper.md", draft(material, About(title="…", authors=("A. Author",))))
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from ccai_core.config import Config
from ccai_core.dataset_card import cell
from ccai_core.paper.material import Material
from ccai_core.paper.methods import methods
from ccai_core.paper.others import expert_review, other_models, over_size
from ccai_core.paper.references import Citations
from ccai_core.paper.results import EXPECTED, headlines, results
from ccai_core.traced import NOT_MEASURED, Trace, code, pointer

PAPER_FILE = "paper.md"


class About(Config):
    """What no result says."""

    title: str = Field(
        "Contemplative Constitutional AI: training and evaluation of a language model",
        min_length=1,
        description="Title of the paper.",
    )
    authors: tuple[str, ...] = Field((), description="Authors, in order.")


def draft(material: Material, about: About) -> str:
    """Return the paper.

    Raises:
        DataError: a result is of another kind than its name says.
    """
    trace, cite = Trace(), Citations()
    return "\n\n".join(filter(None, _parts(material, about, trace, cite))) + "\n"


def _parts(material: Material, about: About, trace: Trace, cite: Citations) -> Iterator[str]:
    yield f"# {cell(about.title)}"
    yield ", ".join(map(cell, about.authors)) or "*Authors: to be named.*"
    yield (
        "*A draft, written by a program from results alone. Every number of a result links to the "
        "trace at the end: file, place, MLflow run, command. What was not measured is said to be.*"
    )
    yield "## Abstract"
    yield from _abstract(material, trace)
    yield "## Introduction"
    yield from _introduction(cite)
    yield "## Methods"
    yield from methods(material, trace, cite)
    yield "## Results"
    yield from results(material, trace)
    yield "### Other models"
    yield from other_models(material, trace)
    yield "### Over model size"
    yield from over_size(material, trace)
    yield "### Expert review"
    yield from expert_review(material, trace)
    yield "## Limitations"
    yield "\n".join(f"- {line}" for line in _limitations(material, trace))
    yield "## References"
    yield cite.references()
    yield "## Trace"
    yield trace.numbers()
    yield "### Sources"
    yield trace.sources()


def _abstract(material: Material, trace: Trace) -> Iterator[str]:
    result = material.result
    pairs = trace.value(material.training, "/pairs_train", lambda n: f"{n:,}")
    who = (
        f"{code(result.trained_model)} was trained from {code(result.baseline_model)}"
        if result
        else "A model was trained"
    )
    yield (
        f"{who} on pairs of answers (number of pairs: {pairs}), of which each chosen one is a "
        "revision under one principle of a constitution. Both models answered the same held-out "
        "prompts. " + " ".join(headlines(material, trace))
    )


def _introduction(cite: Citations) -> Iterator[str]:
    yield (
        f"{cite('laukkonen2025')} propose that principles from contemplative traditions "
        "(mindfulness, emptiness, non-duality, boundless care) could align AI systems from within, "
        "and report effects of prompting with them. Whether such principles can be trained into "
        f"a model is open. {cite('bai2022')} let a model criticise and revise its own answers "
        f"under a written constitution; {cite('rafailov2023')} train on preferred and rejected "
        "answers directly, without a reward model."
    )
    yield (
        "The question here: does training on revisions under such principles make a model safer "
        "and wiser, by its constitution's own criteria, and no less capable? “Wiser” is short for "
        "“rated higher on these criteria”; it says nothing about a mind."
    )


def _limitations(material: Material, trace: Trace) -> Iterator[str]:
    result = material.result
    if result is not None and result.judge.weak:
        yield (
            "The judge is weak: where the right answer is known, it is not reliably right. What it "
            "rated is a hint, not evidence."
        )
    measured = {metric.id for metric in result.metrics} if result else set()
    if left := [title for name, title in EXPECTED.items() if name not in measured]:
        yield f"{NOT_MEASURED.capitalize()}: {'; '.join(map(cell, left))}."
    for source, what in (
        (material.review, "what people think (expert review)"),
        (material.training, "the training itself"),
        (material.pairs, "the preference data"),
    ):
        if not source.is_there:
            yield f"{NOT_MEASURED.capitalize()}: {what}."
    if material.comparison is None:
        yield f"{NOT_MEASURED.capitalize()}: other models and other sizes."
    for file in material.changed:
        yield f"{code(file)} is not as it was when it was made; its numbers are those of now."
    for place in range(len(result.notes) if result else 0):
        yield trace.text(material.evaluation, pointer("notes", place))
    yield "One training run with one seed: another gives another model. No interval holds that."
    yield (
        "The criteria are the constitution's own. A model that learned its vocabulary can be rated "
        "higher for that alone."
    )
    yield (
        "“No difference shown” does not mean that there is none: the interval says how large a "
        "difference could have been missed."
    )
