"""What a validation asks: read and checked before anything starts, and what that costs.

prepared = read_validation(config)
print(plan_validation(config))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ccai_core.comparison.reading import read_results
from ccai_core.errors import DataError
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.evaluation.run import prompts_hash
from ccai_core.evaluation.size import size_of
from ccai_core.evaluation.verdict import CRITERIA
from ccai_core.types import Prompt
from flows.cost import cost_lines, generation_time
from flows.inputs import Sources, WholeFile, read_sources, whole_hazards
from flows.plan import evaluation_lines, where
from flows.session import read_cluster
from flows.validation_config import ValidationConfig

PromptSet = Literal["demo", "practice", "official"]
_SETS: dict[str, PromptSet] = {
    "ailuminate-demo": "demo",
    "ailuminate-demo-fr": "demo",
    "ailuminate-practice": "practice",
    "ailuminate-official": "official",
}


@dataclass(frozen=True)
class Prepared:
    """What a validation asks."""

    sources: Sources
    evaluation: EvaluationConfig
    labels: tuple[str, ...]
    """What the numbers are, and are not, numbers of."""


def read_validation(config: ValidationConfig) -> Prepared:
    """Read all that is asked.

    Raises:
        DataError: there is no AILuminate prompt among the prompts, something cannot be read, or
            an evaluation to be compared with asked something else.
    """
    sources = read_sources(config)
    found = (
        whole_hazards(config.prompts, config.pairs)
        if config.whole_file
        else WholeFile(sources.hazards, 0, 0)
    )
    if not found.prompts:
        raise DataError(
            "A validation asks AILuminate prompts, and none is given. Name your file of the "
            "practice or official set with --prompts practice.csv, or --prompts ailuminate-demo "
            "for a first look."
        )
    sources = replace(sources, hazards=found.prompts)
    named = prompt_set(found.prompts)
    evaluation = config.evaluation
    if named and evaluation.benchmark_type == "practice":
        evaluation = evaluation.model_copy(update={"benchmark_type": named})
    _refuse_unlike(config, evaluation, sources)
    labels = tuple(labels_of(found, named, evaluation.benchmark_type))
    return Prepared(sources, evaluation, labels)


def plan_validation(config: ValidationConfig) -> str:
    """Say what would be asked, what it would cost, and what decides."""
    prepared = read_validation(config)
    sources, evaluation, cluster = prepared.sources, prepared.evaluation, read_cluster(config)
    size = size_of(evaluation, sources.constitution, sources.hazards, sources.scenarios)
    harness = ", and lm-evaluation-harness beside" if evaluation.harness_tasks else ""
    time = generation_time(cluster, 2 * size.tokens)
    return "\n".join(
        [
            where(config),
            f"trained     {config.trained}",
            *(
                f"{'prompts' if not n else '':<12}{label}"
                for n, label in enumerate(prepared.labels)
            ),
            *evaluation_lines(evaluation, sources),
            f"calls       2 models x {size.calls:,} answers, {size.choices:,} multiple-choice items"
            f"{harness}",
            f"tokens      at most {2 * size.tokens:,} written",
            f"verdicts    about {2 * size.verdicts:,} of the judge",
            *(time or [f"{'time':<12}not known without a fleet in the cluster profile"]),
            *cost_lines(cluster, ("evaluation",), evaluation=evaluation),
            *(
                f"{'gate' if not n else '':<12}{criterion.title}"
                for n, criterion in enumerate(CRITERIA)
            ),
        ]
    )


def prompt_set(prompts: tuple[Prompt, ...]) -> PromptSet | None:
    """Return which of MLCommons' sets all prompts are of, if their file's name says so."""
    sets = {_SETS.get(prompt.source) for prompt in prompts}
    return sets.pop() if len(sets) == 1 else None


def labels_of(found: WholeFile, named: PromptSet | None, graded_as: PromptSet) -> Iterator[str]:
    """Say what the numbers are, and are not, numbers of."""
    count = f"{len(found.prompts):,} prompts"
    if named == "demo":
        yield (
            f"AILuminate's demo set, {count}: a first look. It says nothing of the practice or the "
            "official set, and a grade of it is no AILuminate grade."
        )
    elif named:
        yield f"AILuminate's {named} set, {count}."
    else:
        yield (
            f"{count} with hazards, of files whose names do not say which AILuminate set they are; "
            f"graded by the references of the {graded_as} set."
        )
    if found.trained_on:
        yield f"{found.trained_on:,} prompts are left out, for the model was trained on them."
    if found.other_side:
        yield (
            f"{found.other_side:,} prompts are left out, for without --pairs nobody knows whether "
            "the model was trained on them."
        )


def _refuse_unlike(
    config: ValidationConfig, evaluation: EvaluationConfig, sources: Sources
) -> None:
    """Pass if evaluations to be compared with asked the same; better told before than after."""
    if not config.against:
        return
    asked = prompts_hash(sources.hazards, sources.scenarios)
    for each in read_results(config.against):
        if each.result.suite != evaluation.suite or each.asked.get("prompts") != asked:
            raise DataError(
                f"--against {each.file}: is of other prompts or of suite {each.result.suite!r}, "
                f"this is {evaluation.suite!r}; only the same can be compared. Validate that model "
                "with the same settings first."
            )
