"""Eight simulated servers, 40,000 pairs: how busy are they, from the first call to the last?

Runs the real scheduler, filters and client against servers with continuous batching in simulated
time (see simulated_servers.py), so the result does not depend on the machine. Utilisation is the
share of the servers' slots that hold a call, over the whole run: start, tail and all. With --lose,
one of the servers dies in the middle, and what the others do after it is compared with their share.

    python benchmarks/generation/simulated.py
    python benchmarks/generation/simulated.py --servers 4 --pairs 8000 --lose
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.generation.simulated_servers import (  # noqa: E402
    ServerSpeed,
    SimulatedServer,
    run_simulated,
)
from benchmarks.generation.standin import MODEL, memory_mb, prompts  # noqa: E402
from ccai_core.constitution import load_constitutional_config  # noqa: E402
from ccai_core.preferences import GenerationConfig, PairSet, PreferenceConfig, make_pairs  # noqa: E402
from ccai_core.types import Call, Completion, fingerprint  # noqa: E402
from infra.client import ChatMessage, ChatRequest, Client  # noqa: E402

_JOURNAL_S = 0.03  # until an answer is on the disk; it holds no slot meanwhile
_NOTICED_S = 10.0  # until a dead server is no longer in the fleet's list


class FleetOf:
    """The servers as an engine, through the real client."""

    model = MODEL

    def __init__(self, servers: list[SimulatedServer], affinity: bool = True) -> None:
        by_url = {each.endpoint.url: each for each in servers}
        self.present = [each.endpoint for each in servers]
        self.client = Client(lambda: self.present, "key")
        self.client._pool._connect = lambda endpoint: by_url[endpoint.url]  # type: ignore[assignment, return-value]
        self._affinity = affinity
        self.asked = 0

    @property
    def room(self) -> int | None:
        """Calls of new episodes that the servers have room for."""
        return self.client.room

    async def generate(self, call: Call) -> Completion:
        """Answer one call; it returns when it would be on the disk."""
        sampling = call.sampling
        request = ChatRequest(
            messages=tuple(ChatMessage(role=m.role, content=m.content) for m in call.messages),
            max_tokens=sampling.max_new_tokens,
            seed=sampling.seed,
        )
        self.asked += 1
        answer = await self.client.chat(request, call.episode if self._affinity else None)
        await asyncio.sleep(_JOURNAL_S)
        return Completion(
            text=answer.text,
            finish_reason=answer.finish_reason,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            model=MODEL,
        )


async def make(
    servers: list[SimulatedServer], pairs: int, few_shot: int, lose_after: float | None
) -> dict[str, object]:
    """Make pairs on the servers and measure."""
    engine = FleetOf(servers)
    config = PreferenceConfig(generation=GenerationConfig(few_shot=few_shot), max_passes=100)
    began = time.monotonic()
    lost_at: list[float] = []

    def look(kept: int, wanted: int, calls: int) -> None:
        if lose_after is not None and not lost_at and kept >= lose_after * wanted:
            lost_at.append(time.monotonic())
            servers[0].die()
            loop = asyncio.get_running_loop()
            loop.call_later(_NOTICED_S, lambda: engine.present.remove(servers[0].endpoint))

    async with engine.client:
        made = await make_pairs(
            engine, prompts(4000), load_constitutional_config(), config, pairs, look
        )
        statistics = engine.client.statistics()
    ended = time.monotonic()
    return {
        **_used(servers, began, ended),
        **_after(servers, lost_at, ended),
        "pairs": made.funnel.pairs,
        "seconds": round(ended - began, 1),
        "pairs_per_second": round(made.funnel.pairs / (ended - began), 2),
        "calls": engine.asked,
        "calls_of_the_set": made.funnel.calls,
        "retried": statistics.retried,
        "failed": statistics.failed,
        "rows": digest(made),
    }


def digest(made: PairSet) -> str:
    """Return a hash of all pairs, in their order."""
    return fingerprint([pair.model_dump() for pair in made.pairs])


def _used(servers: list[SimulatedServer], began: float, ended: float) -> dict[str, object]:
    slots = servers[0].speed.slots * (ended - began)
    shares = [each.usage.slot_seconds / slots for each in servers]
    read = sum(each.usage.read for each in servers)
    cached = sum(each.usage.cached for each in servers)
    generated = sum(each.usage.generated for each in servers)
    return {
        "servers": len(servers),
        "utilisation": round(sum(shares) / len(shares), 4),
        "least_utilised": round(min(shares), 4),
        "prefix_cache_hits": round(cached / max(1, read + cached), 4),
        "tokens_out_per_second": round(generated / (ended - began)),
    }


def _after(servers: list[SimulatedServer], lost_at: list[float], ended: float) -> dict[str, object]:
    if not lost_at:
        return {}
    slots = servers[0].speed.slots * (ended - lost_at[0])
    shares = []
    for each in servers[1:]:
        before = max((used for at, used in each.usage.series if at <= lost_at[0]), default=0.0)
        shares.append((each.usage.slot_seconds - before) / slots)
    return {"others_after_the_loss": round(min(shares), 4), "lost_at": round(lost_at[0] - 1000, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--servers", type=int, default=8)
    parser.add_argument("--slots", type=int, default=128, help="calls a server decodes at once")
    parser.add_argument("--pairs", type=int, default=40_000)
    parser.add_argument("--few-shot", type=int, default=0, help="worked examples in each call")
    parser.add_argument("--lose", action="store_true", help="one server dies after a third")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    chosen = parser.parse_args()

    async def simulate() -> dict[str, object]:
        speed = ServerSpeed(slots=chosen.slots)
        servers = [SimulatedServer(f"s{n}", speed) for n in range(chosen.servers)]
        return await make(servers, chosen.pairs, chosen.few_shot, 1 / 3 if chosen.lose else None)

    began = time.perf_counter()
    found = run_simulated(simulate())
    found["took_seconds"] = round(time.perf_counter() - began, 1)
    found["memory_mb"] = round(memory_mb())
    for name, value in found.items():
        print(f"{name.replace('_', ' '):24} {value}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
