"""Settings of `python -m flows.serve`.

ServeConfig(limits={"my-cluster": 4}, time_zone="Europe/Berlin")
"""

from __future__ import annotations

from datetime import time
from zoneinfo import available_timezones

from pydantic import Field, field_validator

from ccai_core.config import Config
from ccai_core.errors import closest


class ServeConfig(Config):
    """What is offered in the Prefect UI, and how much of it runs at a time."""

    local: int = Field(1, ge=1, description="Flow runs at a time on this machine; others wait.")
    limits: dict[str, int] = Field(
        {},
        description="The same for other clusters, by their names in the form; one that is not "
        "named has no limit.",
    )
    at_once: int = Field(
        1,
        ge=1,
        description="Runs of one deployment at a time; further ones wait. They share a workspace "
        "unless their forms name others.",
    )
    runs: int = Field(16, ge=1, description="Flow runs that this process holds at a time.")
    late_minutes: int = Field(
        15,
        ge=0,
        description="Minutes after which a flow run that was due and has not started is told to "
        "people; 0: never.",
    )
    nightly_at: time = Field(time(2, 0), description="When the nightly evaluation runs.")
    time_zone: str = Field("UTC", description="Time zone of that, e.g. Europe/Berlin.")

    @field_validator("limits")
    @classmethod
    def _positive(cls, limits: dict[str, int]) -> dict[str, int]:
        for name, limit in limits.items():
            if limit < 1:
                raise ValueError(f"cluster {name!r}: a limit must be at least 1")
        return limits

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError(f"no such time zone.{closest(name, available_timezones())}")
        return name

    @property
    def all_limits(self) -> dict[str, int]:
        """Flow runs at a time on every cluster that has a limit."""
        return {"local": self.local, **self.limits}

    @property
    def cron(self) -> str:
        """When the nightly evaluation runs, as cron says it."""
        return f"{self.nightly_at.minute} {self.nightly_at.hour} * * *"
