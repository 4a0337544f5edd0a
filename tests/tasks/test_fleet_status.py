"""How a fleet is: counted by its client, and cache hits since the run began."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from aiohttp import web

from infra.client import ChatMessage, ChatRequest, Client, ClientConfig
from infra.fleet_metrics import Load
from tasks import fleet_status
from tasks.fleet_status import FleetStatus
from tests.infra.model_server import KEY, ModelServer

LOAD = Load(at=0.0, running=0, waiting=0, errors=0, tokens=0, cache=(1000, 900))


def test_it_counts_answers_errors_by_kind_and_hits_of_this_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleet_status, "_CACHE_EVERY_S", 0.0)
    refusals = [503, 500]

    async def fault(_: ModelServer, __: web.Request) -> web.Response | None:
        return web.json_response({}, status=refusals.pop()) if refusals else None

    async def main() -> None:
        config = ClientConfig(backoff_seconds=0.001)
        async with (
            ModelServer(fault=fault) as server,
            Client(lambda: [server.endpoint], KEY, config) as client,
        ):
            loads = {server.endpoint: LOAD}

            async def measure() -> dict[object, Load]:
                return loads

            status = FleetStatus(client, measure)  # type: ignore[arg-type]
            assert (await status.look()).cache_hit_rate is None
            message = ChatMessage(role="user", content="hi")
            await client.chat(ChatRequest(messages=(message,)))
            # What the server had read before is not this run's.
            loads[server.endpoint] = replace(LOAD, cache=(3000, 1400))
            seen = await status.look()
            assert seen.cache_hit_rate == 0.25
            assert seen.errors == {"overloaded": 1, "unavailable": 1}
            assert seen.retried == 2
            (row,) = seen.endpoints
            assert (row.answered, row.failed, row.in_flight, row.state) == (1, 2, 0, "closed")

    asyncio.run(main())
