"""The settings of an expert review: what is shown to whom, and what comes back.

BuildReviewConfig(answers=(Path("evaluation.json"),), design=DesignConfig(reviewers=6))
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from ccai_core.config import Config
from ccai_core.human_evaluation.design import DesignConfig
from flows.config import PLAIN, TrackingUri

KEY_FILE, PACKAGE_FILE = "expert_review_key.json", "expert_review_package.zip"


class BuildReviewConfig(Config):
    """Settings of `python -m flows.human_evaluation build`."""

    answers: tuple[Path, ...] = Field(
        (),
        description="Where answers are from: evaluation.json files, folders with one, or JSONL "
        "files with prompt, model and answer a line.",
    )
    models: tuple[str, ...] = Field(
        (), description="Models to compare, as the answers name them; none: all."
    )
    trained_on: Path | None = Field(
        None, description="Training pairs of the models; prompts that are in them are refused."
    )
    design: Annotated[DesignConfig, PLAIN] = Field(
        default=DesignConfig(), description="How large the review is, and who sees how much of it."
    )
    consent: Path | None = Field(
        None, description="Text file with what reviewers agree to; unset: the shipped text."
    )
    contact: str = Field("", description="Whom reviewers can ask, and hand their file to.")
    out: Path = Field(
        Path("runs/expert_review"), description="Folder for the package and, beside it, its key."
    )


class CollectReviewConfig(Config):
    """Settings of `python -m flows.human_evaluation collect`."""

    files: tyro.conf.Positional[tuple[Path, ...]] = Field(
        (), description="The JSON files that reviewers saved."
    )
    key: Path = Field(
        Path("runs/expert_review") / KEY_FILE, description="The key that build wrote."
    )
    failed_checks_allowed: int = Field(
        0, ge=0, description="Reviewers who fail more attention checks are not counted."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the bootstrap.")
    workspace: Path = Field(
        Path("runs/expert_review"), description="Folder for the report and the results."
    )
    tracking_uri: TrackingUri = Field(
        None,
        description="MLflow server; unset: $MLFLOW_TRACKING_URI, else in the workspace.",
    )
    experiment: str = Field("ccai", description="MLflow experiment.")
