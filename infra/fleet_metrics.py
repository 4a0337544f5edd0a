"""What a fleet's servers are doing: tokens, requests at work, requests waiting, errors.

Each instance's proxy counts what passes through it; the engine's own /metrics know more, where it
has them: tokens while they are made, and who waits.

    loads = measure(endpoints, key)
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiohttp import ClientError, ClientSession, ClientTimeout

from infra.cluster import EngineName
from infra.endpoint import Endpoint
from infra.proxy import COUNTS

_TIMEOUT_S = 3.0
_LINE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{.*\})?\s+(\S+)")

# Names in the Prometheus text of each engine; the transformers engine has the proxy's counts alone.
_TOKENS: Mapping[EngineName, str] = {
    "vllm": "vllm:generation_tokens_total",
    "sglang": "sglang:generation_tokens_total",
    "tgi": "tgi_request_generated_tokens_sum",
    "llamacpp": "llamacpp:tokens_predicted_total",
}
_WAITING: Mapping[EngineName, str] = {
    "vllm": "vllm:num_requests_waiting",
    "sglang": "sglang:num_queue_reqs",
    "tgi": "tgi_queue_size",
    "llamacpp": "llamacpp:requests_deferred",
}
# Tokens of prompts, and those of them that were found in the prefix cache.
_CACHE: Mapping[EngineName, tuple[str, str]] = {
    "vllm": ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"),
    "sglang": ("sglang:prompt_tokens_total", "sglang:cached_tokens_total"),
}


@dataclass(frozen=True)
class Load:
    """One server at one moment; None: it does not say."""

    at: float
    """When it was asked (monotonic seconds)."""
    running: int
    waiting: int | None
    errors: int
    tokens: int
    """Generated since it started."""
    cache: tuple[int, int] | None = None
    """Tokens of prompts since then, and those of them that were in the prefix cache."""

    def tokens_per_second(self, before: Load | None) -> float | None:
        """Return the rate since an earlier look; None where there was none."""
        if before is None or self.at <= before.at or self.tokens < before.tokens:
            return None
        return (self.tokens - before.tokens) / (self.at - before.at)


def measure(endpoints: Iterable[Endpoint], key: str) -> dict[Endpoint, Load]:
    """Ask every server once; one that does not answer is left out."""
    return asyncio.run(measure_within(endpoints, key))


async def measure_within(endpoints: Iterable[Endpoint], key: str) -> dict[Endpoint, Load]:
    """Do what `measure` does, in an event loop that runs already."""
    endpoints = tuple(endpoints)
    headers = {"Authorization": f"Bearer {key}"}
    limit = ClientTimeout(total=_TIMEOUT_S)
    async with ClientSession(timeout=limit, headers=headers) as session:
        loads = await asyncio.gather(*(_load(session, each) for each in endpoints))
    return {each: load for each, load in zip(endpoints, loads, strict=True) if load is not None}


async def _load(session: ClientSession, endpoint: Endpoint) -> Load | None:
    try:
        async with session.get(f"{endpoint.url}{COUNTS}") as answer:
            if answer.status != 200:
                return None
            counts = await answer.json()
        engine = await _engine_metrics(session, endpoint)
        waiting = engine.get(_WAITING.get(endpoint.engine, ""))
        running = int(counts["in_flight"])
        return Load(
            at=time.monotonic(),
            # What waits in the engine has passed the proxy already.
            running=running if waiting is None else max(0, running - int(waiting)),
            waiting=None if waiting is None else int(waiting),
            errors=int(counts["errors"]),
            tokens=int(engine.get(_TOKENS.get(endpoint.engine, ""), counts["completion_tokens"])),
            cache=_cache(engine, endpoint.engine),
        )
    except (ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError):
        return None


def _cache(metrics: Mapping[str, float], engine: EngineName) -> tuple[int, int] | None:
    asked, found = (metrics.get(name) for name in _CACHE.get(engine, ("", "")))
    return None if asked is None or found is None else (int(asked), int(found))


async def _engine_metrics(session: ClientSession, endpoint: Endpoint) -> dict[str, float]:
    if endpoint.engine not in _TOKENS:
        return {}
    async with session.get(f"{endpoint.url}/metrics") as answer:
        return metric_sums(await answer.text()) if answer.status == 200 else {}


def metric_sums(text: str) -> dict[str, float]:
    """Return each metric of a Prometheus text, summed over its labels."""
    sums: dict[str, float] = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        try:
            value = float(found[2])
        except ValueError:
            continue  # A word where a number should be says nothing that can be added up.
        sums[found[1]] = sums.get(found[1], 0.0) + value
    return sums
