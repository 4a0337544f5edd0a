"""The settings of every flow: one model makes command line, YAML, Prefect form and docs.

config = PoCConfig(max_pairs=48, training=TrainingConfig(epochs=1))
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from ccai_core.config import Config
from ccai_core.constitution import DEFAULT_CONSTITUTION
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.models import DEFAULT_MODEL
from ccai_core.preferences import PreferenceConfig
from ccai_core.training_config import TrainingConfig

# On the command line these settings stand without a prefix: --temperature reads better in its
# group than --preferences.generation.temperature.
PLAIN = tyro.conf.arg(name="")


class RunConfig(Config):
    """Where a flow works and reports to."""

    workspace: Path = Field(
        Path("runs/poc"), description="Folder for everything that is made; run again to go on."
    )
    cluster: str = Field("local", description="Cluster profile: a name or a YAML file.")
    device: Literal["auto", "cuda", "mps", "cpu"] | None = Field(
        None, description="What models run on; unset: as the profile says (auto)."
    )
    tracking_uri: str | None = Field(
        None,
        description="MLflow server; unset: $MLFLOW_TRACKING_URI, else in the workspace.",
    )
    experiment: str = Field("ccai", description="MLflow experiment.")


class ModelConfig(RunConfig):
    """Which model."""

    model: str = Field(
        DEFAULT_MODEL, description="Hub id of a chat model, a folder, or 'embedded' (SmolLM2-135M)."
    )
    fallback: bool = Field(
        True, description="Take the embedded model when the hub is away and nothing is cached."
    )


class SourceConfig(ModelConfig):
    """Which principles and prompts."""

    constitution: str = Field(
        DEFAULT_CONSTITUTION, description="Markdown file, or the name of a shipped constitution."
    )
    prompts: tuple[str, ...] = Field(
        (),
        description="Prompt files (.csv, .jsonl), or 'ailuminate-demo' to fetch that set. Their "
        "train side makes pairs, their test side evaluates.",
    )
    scenarios: bool = Field(
        True, description="Use the 200 shipped contemplative scenarios as well."
    )


class PreferenceDataConfig(SourceConfig):
    """Settings of `python -m flows.preference_data`."""

    max_pairs: int = Field(
        500, ge=1, le=10_000_000, description="Preference pairs to make, over all principles."
    )
    preferences: Annotated[PreferenceConfig, PLAIN] = Field(
        default=PreferenceConfig(), description="How pairs are made."
    )


class TrainingFlowConfig(ModelConfig):
    """Settings of `python -m flows.training`."""

    pairs: Path = Field(description="pairs.jsonl, as flows.preference_data makes it.")
    training: Annotated[TrainingConfig, PLAIN] = Field(
        default=TrainingConfig(), description="How the model is trained."
    )


class EvaluationFlowConfig(SourceConfig):
    """Settings of `python -m flows.evaluation`."""

    trained: str = Field(description="The trained model: a folder or a hub id.")
    pairs: Path | None = Field(
        None, description="What it was trained on; evaluation refuses prompts that are in there."
    )
    evaluation: Annotated[EvaluationConfig, PLAIN] = Field(
        default=EvaluationConfig(), description="What is measured, on how many items."
    )


class PoCConfig(PreferenceDataConfig):
    """Settings of `python -m flows.poc`: pairs, training and evaluation in one flow."""

    training: TrainingConfig = Field(
        default=TrainingConfig(), description="How the model is trained."
    )
    evaluation: EvaluationConfig = Field(
        default=EvaluationConfig(), description="What is measured, on how many items."
    )
