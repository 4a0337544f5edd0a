"""Settings of `python -m flows.nightly`.

NightlyConfig(registered="ccai", at=time(2, 0), time_zone="Europe/Berlin")
"""

from __future__ import annotations

from datetime import time
from pathlib import Path
from zoneinfo import available_timezones

from pydantic import Field, field_validator

from ccai_core.config import Config
from ccai_core.errors import closest
from ccai_core.evaluation.config import EvaluationConfig
from flows.config import SourceConfig


class SimulationConfig(Config):
    """What happens in a replayed month: numbers are drawn, everything else is as in earnest."""

    regression: int = Field(
        20, ge=0, description="Night from which on the model is worse; 0: none."
    )
    drop: float = Field(0.25, ge=0, le=1, description="By how much then, in every measure.")
    lasts: int = Field(0, ge=0, description="Nights that this lasts; 0: to the end.")
    missed: int = Field(9, ge=0, description="Night on which the machine is off; 0: none.")
    overlapped: int = Field(14, ge=0, description="Night that is started twice; 0: none.")
    seed: int = Field(0, ge=0, description="Of the draws.")

    def is_worse(self, night: int) -> bool:
        """Whether the model is worse in this night, counted from 1."""
        first = self.regression
        return bool(first) and night >= first and (not self.lasts or night < first + self.lasts)


class NightlyConfig(SourceConfig):
    """What is evaluated every night, and what it is compared with.

    The baseline is what the registered model was made from; `model` names it if it is a folder.
    """

    workspace: Path = Field(
        Path("runs/nightly"), description="Folder for everything that is made; run again to go on."
    )
    registered: str = Field("ccai", description="Name of the registered model in MLflow.")
    measures: tuple[str, ...] = Field(
        ("safety.safe_rate", "contemplative.overall", "capability.overall"),
        min_length=1,
        description="Measures that are charted, by their keys in evaluation.json.",
    )
    history: int = Field(30, ge=7, description="Nights that a new one is compared with.")
    keep: int = Field(7, ge=1, description="Nights whose answers and reports are kept.")
    at: time = Field(time(2, 0), description="When a night is due; earlier belongs to the last.")
    time_zone: str = Field("UTC", description="Time zone of that, e.g. Europe/Berlin.")
    again: bool = Field(False, description="Measure the night even if it was measured already.")
    evaluation: EvaluationConfig = Field(
        default=EvaluationConfig(),
        description="What is measured, twice a night: on a fixed core and on a rotating sample.",
    )
    simulate: int = Field(
        0, ge=0, le=3650, description="Replay this many nights with drawn numbers, and stop."
    )
    simulation: SimulationConfig = Field(
        default=SimulationConfig(), description="What happens in them."
    )

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError(f"no such time zone.{closest(name, available_timezones())}")
        return name
