"""How an engine of many servers is at a moment: what is in flight, who is ill, what went wrong.

if isinstance(engine, Reporting):
    status = await engine.status()
    print(status.in_flight, status.cache_hit_rate, status.errors)
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from pydantic import Field

from ccai_core.config import Config


class EndpointHealth(Config):
    """One server."""

    name: str = Field(description="Which instance.")
    state: str = Field(description="closed: it answers; open: it rests; half-open: it is tried.")
    in_flight: int = Field(description="Calls it works on.")
    limit: int = Field(description="Calls it is given at most, now.")
    answered: int = Field(description="Calls it has answered.")
    failed: int = Field(description="Attempts that failed there.")
    tokens_per_second: float = Field(description="Written over the last half minute.")


class EngineStatus(Config):
    """All of them."""

    in_flight: int = Field(description="Calls that servers work on.")
    waiting: int = Field(description="Calls that wait for a place.")
    retried: int = Field(description="Attempts after a failed one, so far.")
    errors: dict[str, int] = Field(description="Failed attempts by kind, so far.")
    cache_hit_rate: float | None = Field(
        description="Part of the prompts' tokens that was in a prefix cache; none: not known."
    )
    endpoints: tuple[EndpointHealth, ...] = Field(description="Each server.")


@runtime_checkable
class Reporting(Protocol):
    """An engine that can say how its servers are."""

    async def status(self) -> EngineStatus:
        """Return how they are now."""
