"""How a fleet is while it is asked: the client's own count, and what the engines say of caches.

status = FleetStatus(client, lambda: measure_within(fleet.endpoints(), fleet.key))
print((await status.look()).cache_hit_rate)
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

from ccai_core.engine_status import EndpointHealth, EngineStatus
from infra.client import Client
from infra.endpoint import Endpoint
from infra.fleet_metrics import Load

# Asking all engines costs each of them a little.
_CACHE_EVERY_S = 15.0

Measure = Callable[[], Awaitable[Mapping[Endpoint, Load]]]


class FleetStatus:
    """Looks at a client at once, and at its engines now and then."""

    def __init__(self, client: Client, measure: Measure | None) -> None:
        self._client, self._measure = client, measure
        self._first: dict[Endpoint, tuple[int, int]] = {}
        self._hit_rate: float | None = None
        self._next = 0.0

    async def look(self) -> EngineStatus:
        """Return how the fleet is now."""
        if self._measure and time.monotonic() >= self._next:
            self._next = time.monotonic() + _CACHE_EVERY_S
            self._count_hits(await self._measure())
        seen = self._client.statistics()
        return EngineStatus(
            in_flight=sum(each.in_flight for each in seen.endpoints),
            waiting=seen.waiting,
            retried=seen.retried,
            errors=dict(seen.errors),
            cache_hit_rate=self._hit_rate,
            endpoints=tuple(
                EndpointHealth(
                    name=each.instance,
                    state=each.circuit,
                    in_flight=each.in_flight,
                    limit=each.limit,
                    answered=each.answered,
                    failed=each.failed,
                    tokens_per_second=round(each.tokens_per_second, 1),
                )
                for each in seen.endpoints
            ),
        )

    def _count_hits(self, loads: Mapping[Endpoint, Load]) -> None:
        """Compare with the first look: what a server did before is another's."""
        asked = found = 0
        for endpoint, load in loads.items():
            if load.cache is None:
                continue
            before = self._first.setdefault(endpoint, load.cache)
            asked += load.cache[0] - before[0]
            found += load.cache[1] - before[1]
        if asked > 0:
            self._hit_rate = round(found / asked, 4)
