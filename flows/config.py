"""The settings of every flow: one model makes command line, YAML, Prefect form and docs.

config = PoCConfig(max_pairs=48, training=TrainingConfig(epochs=1))
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import tyro
from pydantic import AfterValidator, Field, model_validator

from ccai_core.config import Config
from ccai_core.constitution import DEFAULT_CONSTITUTION
from ccai_core.errors import ConfigError
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.models import DEFAULT_MODEL
from ccai_core.preferences import PreferenceConfig
from ccai_core.prompts.cleaning import CleaningConfig
from ccai_core.prompts.mixing import MixConfig
from ccai_core.prompts.relevance import THRESHOLD
from ccai_core.sft_config import SftConfig
from ccai_core.training_config import TrainingConfig

# On the command line these settings stand without a prefix: --temperature reads better in its
# group than --preferences.generation.temperature.
PLAIN = tyro.conf.arg(name="")


def _without_password(uri: str | None) -> str | None:
    # Not a ValueError: pydantic's would be shown with the value, and its password.
    if uri is not None and urlsplit(uri).password:
        raise ConfigError(
            "tracking_uri: leave the password out of the URL, settings are written into records, "
            "reports and logs. Give it as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
            "or the whole URL as MLFLOW_TRACKING_URI."
        )
    return uri


TrackingUri = Annotated[str | None, AfterValidator(_without_password)]
"""Where MLflow is; as a setting it is written down in many places, so it holds no password."""


class RunConfig(Config):
    """Where a flow works and reports to."""

    workspace: Path = Field(
        Path("runs/poc"), description="Folder for everything that is made; run again to go on."
    )
    cluster: str = Field("local", description="Cluster profile: a name or a YAML file.")
    device: Literal["auto", "cuda", "mps", "cpu"] | None = Field(
        None, description="What models run on; unset: as the profile says (auto)."
    )
    tracking_uri: TrackingUri = Field(
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
        description="Prompts: names of sources (`python -m ccai_core.prompts list`), prompt files, "
        "mapping YAMLs, or folders that flows.prepare_data made. Their train side makes pairs, "
        "their test side evaluates.",
    )
    scenarios: bool = Field(True, description="Use the shipped contemplative scenarios as well.")


class PrepareDataConfig(RunConfig):
    """Settings of `python -m flows.prepare_data`."""

    sources: tuple[str, ...] = Field(
        (),
        description="Where prompts are from: names of sources (`python -m ccai_core.prompts "
        "list`), prompt files, mapping YAMLs, or prepared folders. Earlier ones win over their "
        "near-duplicates in later ones. None: the shipped scenarios, and of ailuminate-demo, "
        "hh-rlhf and oasst1 what is in the data directory.",
    )
    files: dict[str, Path] = Field(
        {},
        description="Files of sources that are elsewhere, or members-only: name and file, e.g. "
        "ailuminate-practice ~/practice.csv.",
    )
    mix: Annotated[MixConfig, PLAIN] = Field(
        default=MixConfig(), description="How many prompts of what kind."
    )
    cleaning: CleaningConfig = Field(
        default=CleaningConfig(), description="Which prompts are dropped before that."
    )
    relevance: float = Field(
        THRESHOLD,
        ge=0,
        le=3,
        description="How much a hazard prompt must call for the principles to be trained on; 0 "
        "takes all. The test side keeps all.",
    )
    include_restricted: bool = Field(
        False, description="Write the text of members-only prompts, not only id and hash."
    )


class PreferenceDataConfig(SourceConfig):
    """Settings of `python -m flows.preference_data`."""

    max_pairs: int = Field(
        500, ge=1, le=10_000_000, description="Preference pairs to make, over all principles."
    )
    preferences: Annotated[PreferenceConfig, PLAIN] = Field(
        default=PreferenceConfig(), description="How pairs are made."
    )


def _held_out_by_both(sft: SftConfig, training: TrainingConfig) -> None:
    """Pass if no answer that DPO measures on is learned by heart before it."""
    if sft.epochs and sft.validation_fraction < training.validation_fraction:
        raise ValueError(
            f"sft.validation_fraction {sft.validation_fraction:g} is less than the "
            f"{training.validation_fraction:g} of prompts that DPO holds out: the supervised stage "
            "would train on pairs that DPO measures on. Set both to the same"
        )


class TrainingFlowConfig(ModelConfig):
    """Settings of `python -m flows.training`."""

    pairs: Path = Field(
        description="Pairs: the folder that flows.preference_data made, or a .parquet or .jsonl "
        "file of your own."
    )
    training: Annotated[TrainingConfig, PLAIN] = Field(
        default=TrainingConfig(), description="How the model is trained."
    )
    sft: SftConfig = Field(
        default=SftConfig(), description="Supervised stage on chosen answers, before DPO."
    )

    @model_validator(mode="after")
    def _measures_on_unseen_pairs(self) -> Self:
        _held_out_by_both(self.sft, self.training)
        return self


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
    sft: SftConfig = Field(
        default=SftConfig(), description="Supervised stage on chosen answers, before DPO."
    )
    evaluation: EvaluationConfig = Field(
        default=EvaluationConfig(), description="What is measured, on how many items."
    )

    @model_validator(mode="after")
    def _measures_on_unseen_pairs(self) -> Self:
        _held_out_by_both(self.sft, self.training)
        return self
