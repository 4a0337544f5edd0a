"""The settings of a sweep.

SweepConfig(pairs=Path("mine.jsonl"), space="lora", trials=16)
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ccai_core.errors import ConfigError
from ccai_core.search_space import read_space
from ccai_core.training_config import TrainingConfig
from flows.config import PLAIN, TrainingFlowConfig
from tasks.study import Objective, Pruner

# With another value of these, the held-out loss is another quantity.
_KINDS_OF_LOSS = {"loss", "beta", "label_noise", "length_desensitised", "simpo_gamma"}


class SweepConfig(TrainingFlowConfig):
    """Settings of `python -m flows.sweep`."""

    space: str = Field(
        "dpo", description="What is searched: a shipped space (dpo, lora) or a YAML file."
    )
    trials: int = Field(8, ge=1, le=10_000, description="Trials in all, those of before included.")
    parallel: int | None = Field(
        None,
        ge=1,
        le=512,
        description="Trials at once; unset: 1 here, the profile's jobs on Slurm.",
    )
    objective: Objective = Field(
        "loss", description="What of the held-out pairs is made small (loss) or great."
    )
    pruner: Pruner = Field(
        "median",
        description="Which trials end early: worse than the median, asha's lower half, or none.",
    )
    checks: int = Field(
        6, ge=1, le=1000, description="Measurements of each trial, for curves and early ends."
    )
    sweep_seed: int = Field(0, ge=0, lt=2**32, description="Seed of what is suggested.")
    storage: str | None = Field(
        None, description="URL of a database for the study; unset: a file in the workspace."
    )
    training: Annotated[TrainingConfig, PLAIN] = Field(
        default=TrainingConfig(), description="What all trials have in common."
    )

    @field_validator("storage")
    @classmethod
    def _has_no_secret(cls, storage: str | None) -> str | None:
        if storage is None:
            return None
        # Not a ValueError: pydantic's would be shown with the value, and its password.
        try:
            secret = make_url(storage).password
        except ArgumentError:
            raise ConfigError(
                "storage: is no URL of a database, e.g. sqlite:///sweeps.db."
            ) from None
        if secret:
            raise ConfigError(
                "storage: leave the password out of the URL, settings are written into records "
                "and logs. Give it in the database's own way: ~/.pgpass, PGPASSWORD, ~/.my.cnf."
            )
        return storage

    @model_validator(mode="after")
    def _can_be_compared(self) -> Self:
        if not self.training.validation_fraction:
            raise ValueError(
                "a sweep compares trials on held-out pairs: set validation_fraction above 0"
            )
        searched = read_space(self.space).dimensions
        if self.objective == "margin" and "beta" in searched:
            raise ValueError(
                f"margins grow with beta, which {self.space} searches: decide by loss or accuracy"
            )
        if self.objective == "loss" and (kinds := _KINDS_OF_LOSS & searched.keys()):
            raise ValueError(
                f"held-out losses with another {', '.join(sorted(kinds))} are other quantities, "
                f"and {self.space} searches that: decide by accuracy"
            )
        return self
