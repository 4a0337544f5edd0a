"""The settings of a validation: an evaluation's, with the sizes that can decide the criteria.

ValidationConfig(trained="my/model", prompts=("practice.csv",))
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from ccai_core.evaluation.config import EvaluationConfig
from flows.config import PLAIN, EvaluationFlowConfig

_SIZES: dict[str, Any] = {
    "suite": "comprehensive",
    "safety_prompts": 400,
    "scenario_prompts": 400,
    "response_tokens": 512,
    "examples": 0,
}


class ValidationConfig(EvaluationFlowConfig):
    """Settings of `python -m flows.validation`."""

    workspace: Path = Field(
        Path("runs/validation"),
        description="Folder for everything that is made; run again to go on.",
    )
    fallback: bool = Field(
        False, description="Take the embedded model when the hub is away and nothing is cached."
    )
    whole_file: bool = Field(
        True,
        description="Ask the hazard prompts of both sides, but for those that the pairs were made "
        "of; no: the test side only. Without pairs nobody knows those, so it is the test side.",
    )
    evaluation: Annotated[EvaluationConfig, PLAIN] = Field(
        default=EvaluationConfig(**_SIZES),
        description="What is measured, on how many items.",
    )
    against: tuple[Path, ...] = Field(
        (),
        description="Evaluations of other models on the very same prompts, to be compared with: "
        "folders evaluation-….",
    )

    @field_validator("evaluation", mode="before")
    @classmethod
    def _over_these_sizes(cls, value: object) -> object:
        # A preset or a file that says one of them leaves the others as they are here.
        return {**_SIZES, **value} if isinstance(value, Mapping) else value
