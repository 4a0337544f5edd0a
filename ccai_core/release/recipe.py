"""How a released model was made and measured, in one file that a machine can follow again.

Nothing in it is a path: models by identity, prompts by the name of their source or file and by the
hash of their content, so that whoever has the same files can be told that they are the same.

    recipe = read_recipe(Path("release"))
    recipe.training.learning_rate, recipe.evaluated.prompts
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ccai_core.config import Config, parse_config
from ccai_core.constitution import Constitution
from ccai_core.dataset_info import DatasetInfo
from ccai_core.errors import ArtifactError, ConfigError
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.preferences import PreferenceConfig
from ccai_core.sft_config import SftConfig
from ccai_core.training_config import TrainingConfig

RECIPE_FILE = "configs/recipe.json"
CONSTITUTION_FILE = "constitution.json"


class PromptFile(Config):
    """A source of prompts, known by its content."""

    name: str = Field(description="Name of the source, or of the file without its folder.")
    content: str = Field(description="Hash of all that it is read from.")

    def __str__(self) -> str:
        return f"{self.name} (content {self.content[:16]})"


class AskedPrompts(Config):
    """Where the prompts of a step were from, as its command said."""

    prompts: tuple[PromptFile, ...] = Field((), description="Sources and files.")
    scenarios: bool = Field(True, description="Whether the shipped scenarios were used as well.")
    hazards: Literal["cleaned", "test side", "unseen"] = Field(
        "cleaned",
        description="Which hazard prompts: the test side as cleaning leaves it, the test side "
        "as it is, or all but those of the pairs (a validation).",
    )


class GenerationRecipe(Config):
    """How the pairs were made."""

    model: str = Field(description="Identity of the model that wrote them.")
    max_pairs: int = Field(ge=1, description="Pairs asked for.")
    preferences: PreferenceConfig = Field(description="Settings.")
    asked: AskedPrompts | None = Field(description="Prompts; none: not known any more.")


class Recipe(Config):
    """All that determines a released model and its numbers."""

    base_model: str = Field(description="Identity of the model before any training.")
    hub_id: str = Field("", description="Where the hub has it, if that is known.")
    baseline: str = Field(description="Identity of the model that it is compared with.")
    judge: str = Field(description="Identity of the judge.")
    guard: str = Field("", description="Identity of the guard that rated safety; empty: none.")
    device: str = Field(description="What it was trained on.")
    sft: SftConfig | None = Field(description="The supervised stage; none: there was none.")
    training: TrainingConfig = Field(description="The training.")
    evaluation: EvaluationConfig = Field(description="What was measured, on how many items.")
    mt_bench: bool = Field(False, description="Whether MT-Bench's files were there.")
    verdicts: bool = Field(False, description="Whether MLCommons' evaluator gave verdicts.")
    evaluated: AskedPrompts | None = Field(
        description="What the evaluation asked; none: not known any more."
    )
    evaluated_hash: str = Field(description="Hash of all prompts to choose from.")
    generation: GenerationRecipe | None = Field(
        description="How the pairs were made; none: they came from elsewhere."
    )
    pairs_hash: str = Field(description="Hash of the pairs as they were trained on.")
    versions: dict[str, str] = Field(description="Packages, and the commit of this code.")


def evaluation_settings(
    inputs: Mapping[str, Any], asked: EvaluationConfig | None
) -> EvaluationConfig:
    """Return an evaluation's settings from its record, and what that leaves out from `asked`.

    Paths are taken out; that there were files is said elsewhere in the recipe.
    """
    recorded = {name: inputs[name] for name in EvaluationConfig.model_fields if name in inputs}
    more = {"batch_size", "harness_tasks", "harness_items"}
    left_out = asked.model_dump(include=more) if asked else {}
    named = {"judge", "guard", *_FILES}
    values = {k: v for k, v in (left_out | recorded).items() if k not in named}
    return EvaluationConfig(**values | {"include_restricted": False})


_FILES = ("mt_bench", "mt_bench_prompts", "baseline_verdicts", "trained_verdicts")


def generation_recipe(info: DatasetInfo, asked: AskedPrompts | None) -> GenerationRecipe | None:
    """Return how a data set of pairs was made, if this code made it."""
    made = info.made
    if not {"model", "max_pairs", "config"} <= made.keys():
        return None
    return GenerationRecipe(
        model=made["model"],
        max_pairs=made["max_pairs"],
        preferences=PreferenceConfig(**made["config"]),
        asked=asked,
    )


def read_recipe(folder: Path) -> Recipe:
    """Return the recipe of a release.

    Raises:
        ArtifactError: there is none, or it is damaged or of another version.
    """
    path = folder / RECIPE_FILE
    try:
        return parse_config(Recipe, json.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: is not there. Name the folder of a release that `python -m flows.release "
            "build` made; one of before there was a recipe must be built again."
        ) from None
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}). Get the release again.") from None


def read_constitution(folder: Path) -> Constitution:
    """Return the constitution of a release.

    Raises:
        ArtifactError: it cannot be read.
    """
    path = folder / CONSTITUTION_FILE
    try:
        return Constitution.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}). Get the release again.") from None
