"""The recipe of a release, from the artifacts' records and from the commands that MLflow kept.

recipe, notices = recipe_of(config, parts)
"""

from __future__ import annotations

import shlex
from pathlib import Path

from ccai_core.errors import CCAIError
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.prompts.given import expanded, locate
from ccai_core.release.parts import Parts
from ccai_core.release.recipe import (
    AskedPrompts,
    PromptFile,
    Recipe,
    evaluation_settings,
    generation_recipe,
)
from flows.cli import parse
from flows.config import EvaluationFlowConfig, PoCConfig, PreferenceDataConfig, SourceConfig
from flows.release_config import ReleaseBuildConfig
from flows.validation_config import ValidationConfig
from infra.origin import find_origin, store_of
from infra.provenance import code_version, versions

_COMMANDS: dict[str, type[SourceConfig]] = {
    "flows.poc": PoCConfig,
    "flows.preference_data": PreferenceDataConfig,
    "flows.evaluation": EvaluationFlowConfig,
    "flows.validation": ValidationConfig,
}


def recipe_of(config: ReleaseBuildConfig, parts: Parts) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe, and what of it nobody knows any more.

    Raises:
        ConfigError: the MLflow store does not answer.
    """
    evaluating = _settings_of(config, config.evaluation)
    generating = _settings_of(config, config.pairs)
    evaluated, lost = _asked(evaluating, "evaluation")
    generated, lost_too = _asked(generating, "pairs")
    inputs = parts.evaluation_record.inputs
    settings = _evaluation_of(evaluating)
    benchmark = next((m for m in parts.evaluation.metrics if m.id == "benchmark.safe_rate"), None)
    recipe = Recipe(
        base_model=parts.base_model,
        hub_id=config.base_model,
        baseline=parts.evaluation.baseline_model,
        judge=inputs["judge"],
        guard=inputs["guard"],
        device=parts.training.device,
        sft=parts.sft,
        training=parts.training_record.inputs["config"],
        evaluation=evaluation_settings(inputs, settings),
        mt_bench=any(m.id == "helpfulness.mt_bench" for m in parts.evaluation.metrics),
        verdicts=benchmark is not None and not benchmark.judged,
        evaluated=evaluated,
        evaluated_hash=inputs["prompts"],
        generation=generation_recipe(parts.info, generated),
        pairs_hash=parts.training_record.inputs["pairs"],
        versions={"code": code_version(), **versions()},
    )
    return recipe, (*lost, *lost_too)


def _settings_of(config: ReleaseBuildConfig, folder: Path) -> SourceConfig | None:
    """Return the settings of the command that made an artifact, if MLflow still has it."""
    folder = folder.resolve()
    uri = store_of(folder, config.tracking_uri)
    origin = find_origin(uri, folder.name) if uri else None
    words = shlex.split(origin.command) if origin else []
    kind = _COMMANDS.get(words[2]) if len(words) > 2 else None
    if kind is None:
        return None
    try:
        return parse(kind, words[2], "", words[3:])[0]
    except (CCAIError, SystemExit):
        # Of a version whose options were others; its prompts are then as unknown as without it.
        return None


def _evaluation_of(settings: SourceConfig | None) -> EvaluationConfig | None:
    found = getattr(settings, "evaluation", None)
    return found if isinstance(found, EvaluationConfig) else None


def _asked(settings: SourceConfig | None, what: str) -> tuple[AskedPrompts | None, tuple[str, ...]]:
    """Return which prompts a command named, by content; or say why that is not known."""
    if settings is None:
        return None, (
            f"The command that made the {what} is not known, so the release does not say which "
            "prompt files it took. Name its MLflow store with --tracking-uri.",
        )
    try:
        sources = [locate(name) for name in expanded(settings.prompts)]
    except CCAIError as error:
        return None, (
            f"The prompts of the {what} are not where they were, so the release does not say "
            f"which they are. {error}",
        )
    files = tuple(
        PromptFile(name=Path(source.name).name, content=source.content) for source in sources
    )
    hazards = "cleaned"
    if isinstance(settings, ValidationConfig) and settings.whole_file:
        hazards = "unseen" if settings.pairs else "test side"
    return AskedPrompts(prompts=files, scenarios=settings.scenarios, hazards=hazards), ()
