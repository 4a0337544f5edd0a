"""What a reproduction needs, read and checked before anything starts.

plan = read_plan(config)
print(plan_reproduction(config))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ccai_core.constitution import Constitution
from ccai_core.embedded import EMBEDDED_NAMES
from ccai_core.errors import ArtifactError, ConfigError, DataError
from ccai_core.evaluation.results import EvaluationResult
from ccai_core.evaluation.run import RESULT_FILE, prompts_hash
from ccai_core.release.build import DATA_FILE
from ccai_core.release.checksums import problems
from ccai_core.release.needed import (
    find_prompts,
    refuse_other_pairs,
    refuse_other_prompts,
    withheld_rows,
)
from ccai_core.release.recipe import AskedPrompts, Recipe, read_constitution, read_recipe
from ccai_core.release.reproduction import compare_numbers
from ccai_core.training_data import read_pairs
from ccai_core.types import fingerprint
from flows.command import carried_over
from flows.config import EvaluationFlowConfig, PreferenceDataConfig, SourceConfig
from flows.cost import Step, cost_lines
from flows.inputs import Sources, read_sources, whole_hazards
from flows.plan import evaluation_lines, preference_lines, supervised, training_line, where
from flows.reproduce_config import ReproduceConfig
from flows.session import read_cluster
from infra.provenance import code_version, versions


@dataclass(frozen=True)
class Plan:
    """A release, read, with all that its recipe needs."""

    recipe: Recipe
    released: EvaluationResult
    baseline: str
    """Name of the model that is compared with."""
    evaluation: EvaluationFlowConfig
    evaluated: Sources
    pairs: Path
    """What is trained on, where nothing is generated."""
    generation: PreferenceDataConfig | None = None
    """How pairs are generated again, where they are."""
    generated: Sources | None = None
    notes: tuple[str, ...] = ()


def read_plan(config: ReproduceConfig) -> Plan:
    """Read a release that is as it was made, and find what its recipe needs.

    Raises:
        ArtifactError: it is not as it was made, or has no recipe.
        DataError: prompts or pairs are not in it, and were not given; says which.
        ConfigError: a model is known by its folder's name only, and was not given.
    """
    folder = config.release
    if found := problems(folder):
        raise ArtifactError("\n".join([f"{folder}: is not as it was made.", *found]))
    recipe, constitution = read_recipe(folder), read_constitution(folder)
    released = _released(folder)
    evaluation = _evaluation(config, recipe)
    data = folder / DATA_FILE
    evaluated = _sources(evaluation, constitution)
    if recipe.evaluated and recipe.evaluated.hazards != "cleaned":
        pairs = (config.pairs or data) if recipe.evaluated.hazards == "unseen" else None
        evaluated = _with_whole_file(evaluated, evaluation, pairs)
    _refuse_other_items(recipe, released, evaluated)
    plan = Plan(
        recipe,
        released,
        _name(config.baseline, recipe.baseline, recipe, "baseline", evaluation.model),
        evaluation,
        evaluated,
        (config.pairs or data).resolve(),
        notes=tuple(_notes(recipe)),
    )
    if config.pairs is not None:
        refuse_other_pairs(data, config.pairs)
    elif config.generate or withheld_rows(data):
        generation = _generation(config, recipe, evaluation.model)
        generated = _sources(generation, constitution)
        refuse_other_prompts(data, generated.train)
        return replace(plan, generation=generation, generated=generated)
    return plan


def plan_reproduction(config: ReproduceConfig) -> str:
    """Say what would be done again, and what it would cost."""
    plan = read_plan(config)
    recipe = plan.recipe
    steps: tuple[Step, ...] = ("training", "evaluation")
    if plan.generation and plan.generated:
        steps = ("generation", *steps)
        count = plan.generation.max_pairs
        pairs = preference_lines(plan.generation, plan.generated)
    else:
        count = len(read_pairs(plan.pairs))
        pairs = [f"pairs       {count}: {plan.pairs}"]
    numbers = len(compare_numbers(plan.released, plan.released))
    return "\n".join(
        [
            f"release     {config.release}: every file is as it was made",
            where(plan.evaluation),
            *pairs,
            *(supervised(recipe.sft, count) if recipe.sft else []),
            training_line(recipe.training, count),
            *evaluation_lines(plan.evaluation.evaluation, plan.evaluated),
            *cost_lines(read_cluster(config), steps, recipe.training, recipe.sft),
            f"compared    {numbers} numbers of {plan.released.trained_model}",
            *(f"{'note' if not n else '':<12}{note}" for n, note in enumerate(plan.notes)),
        ]
    )


def _released(folder: Path) -> EvaluationResult:
    path = folder / "evaluation" / RESULT_FILE
    try:
        return EvaluationResult.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}). Get the release again.") from None


def _name(given: str, identity: str, recipe: Recipe, option: str, base: str = "") -> str:
    """Return by what name a model of the recipe is found.

    Raises:
        ConfigError: it was a folder of whoever made the release.
    """
    if given:
        return given
    if base and identity == recipe.base_model:
        return base
    name = identity.partition("@")[0]
    if name.lower() in EMBEDDED_NAMES:
        return EMBEDDED_NAMES[1]
    if "/" in name:
        # Of the hub, at the very commit.
        return identity
    if identity == recipe.base_model and recipe.hub_id:
        return recipe.hub_id
    raise ConfigError(
        f"--{option}: the recipe's {option} is {identity}, which was a folder of whoever made the "
        f"release. Name your copy of it: --{option} FOLDER."
    )


def _evaluation(config: ReproduceConfig, recipe: Recipe) -> EvaluationFlowConfig:
    model = _name(config.model, recipe.base_model, recipe, "model")
    judge = "baseline"
    if recipe.judge != recipe.baseline or config.judge:
        judge = _name(config.judge, recipe.judge, recipe, "judge", model)
    guard = _name(config.guard, recipe.guard, recipe, "guard") if recipe.guard else None
    if recipe.verdicts and not (config.baseline_verdicts and config.trained_verdicts):
        raise ConfigError(
            "The release's AILuminate grades are from verdicts of MLCommons' evaluator. Let it "
            "rate both models' answers again, and give what it wrote with --baseline-verdicts and "
            "--trained-verdicts."
        )
    settings = recipe.evaluation.model_copy(
        update={
            "judge": judge,
            "guard": guard,
            "mt_bench": config.mt_bench,
            "baseline_verdicts": config.baseline_verdicts,
            "trained_verdicts": config.trained_verdicts,
        }
    )
    asked = _asked(recipe.evaluated, config, "evaluation")
    return carried_over(
        config,
        EvaluationFlowConfig,
        model=model,
        fallback=False,
        trained="made again",
        pairs=None,
        evaluation=settings,
        **asked,
    )


def _generation(config: ReproduceConfig, recipe: Recipe, base: str) -> PreferenceDataConfig:
    made = recipe.generation
    if made is None:
        raise DataError(
            f"{config.release}: does not say how its pairs were generated, so they cannot be made "
            "again. Give them with --pairs."
        )
    return carried_over(
        config,
        PreferenceDataConfig,
        model=_name("", made.model, recipe, "model", base),
        fallback=False,
        max_pairs=made.max_pairs,
        preferences=made.preferences,
        **_asked(made.asked, config, "generation of pairs"),
    )


def _asked(asked: AskedPrompts | None, config: ReproduceConfig, what: str) -> dict[str, object]:
    return {
        "prompts": find_prompts(asked, config.prompts, what),
        "scenarios": asked.scenarios if asked else True,
    }


def _sources(config: SourceConfig, constitution: Constitution) -> Sources:
    """Return the prompts of a step, under the release's own constitution."""
    return replace(read_sources(config), constitution=constitution)


def _with_whole_file(sources: Sources, config: SourceConfig, pairs: Path | None) -> Sources:
    """Take the hazard prompts of both sides, as a validation does, but for those of the pairs.

    Raises:
        DataError: these are ids only, so that nobody can tell which prompts they were made of.
    """
    if pairs and withheld_rows(pairs):
        raise DataError(
            "The release was validated on all hazard prompts but those that it was trained on, and "
            "it holds some pairs as ids only, by which these cannot be told. Give --pairs."
        )
    return replace(sources, hazards=whole_hazards(config.prompts, pairs).prompts)


def _refuse_other_items(recipe: Recipe, released: EvaluationResult, sources: Sources) -> None:
    """Pass if the evaluation chooses from the very prompts that the release's chose from."""
    if prompts_hash(sources.hazards, sources.scenarios) == recipe.evaluated_hash:
        return
    here = {fingerprint(prompt.text) for prompt in (*sources.hazards, *sources.scenarios)}
    asked = {
        name
        for metric in released.metrics
        if metric.id in ("safety.safe_rate", "contemplative.overall") and metric.items
        for name in metric.items.names
    }
    raise DataError(
        f"The release's evaluation chose from other prompts than these: of {len(asked)} that it "
        f"asked, {len(asked - here)} are not here. Give the files that it was evaluated on with "
        f"--prompts, and take the code that made it ({recipe.versions.get('code', 'unknown')}), "
        "whose shipped prompts may be others."
    )


def _notes(recipe: Recipe) -> Iterator[str]:
    now = {"code": code_version(), **versions()}
    other = [
        f"{name} {then}, now {now.get(name, 'none')}"
        for name, then in recipe.versions.items()
        if now.get(name) != then
    ]
    if other:
        yield f"Made with other versions: {'; '.join(other)}."
    if recipe.evaluated is None:
        yield "The release does not say which prompt files it was evaluated on."
    if recipe.mt_bench:
        yield "MT-Bench is asked where its files are here (--mt-bench)."
    yield f"Trained on {recipe.device} then; other devices round differently."
