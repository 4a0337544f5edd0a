"""The order of llm-swarm's example against ours on the same simulated servers.

Simulated time (see simulated_servers.py), so the machine does not matter: pairs a second from the
first call to the last, tail and all, and how much of the prompts was found in the prefix caches.
A pair is a revision that is whole. llm_swarm.py measures the same on a real server.

    python benchmarks/generation/simulated_example.py
    python benchmarks/generation/simulated_example.py --prompts 4000 --servers 4 --few-shot 0
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.generation.example import Counted, Said, in_its_order  # noqa: E402
from benchmarks.generation.simulated import FleetOf  # noqa: E402
from benchmarks.generation.simulated_servers import SimulatedServer, run_simulated  # noqa: E402
from benchmarks.generation.standin import prompts  # noqa: E402
from ccai_core.constitution import load_constitutional_config  # noqa: E402
from ccai_core.episodes import GenerationConfig  # noqa: E402
from ccai_core.scheduling import run_episodes  # noqa: E402
from ccai_core.types import Message  # noqa: E402
from infra.client import ChatMessage, ChatRequest  # noqa: E402


async def measure(how: str, count: int, number: int, few_shot: int) -> dict[str, float | str]:
    """Ask all prompts in one of the two orders."""
    servers = [SimulatedServer(f"s{n}") for n in range(number)]
    engine = FleetOf(servers)
    config, constitution = GenerationConfig(few_shot=few_shot), load_constitutional_config()
    asked = prompts(count)
    made, began = Counted(), time.monotonic()

    async def ask(turns: Sequence[Message], tokens: int) -> Said:
        messages = tuple(ChatMessage(role=each.role, content=each.content) for each in turns)
        answer = await engine.client.chat(ChatRequest(messages=messages, max_tokens=tokens))
        return Said(answer.text, answer.finish_reason == "stop", answer.completion_tokens)

    async with engine.client:
        if how == "example":
            places = sum(each.speed.slots for each in servers)
            made = await in_its_order(ask, constitution, config, asked, places, seed=0)
        else:
            shots = constitution.shots(few_shot)
            work = ((prompt, 0) for prompt in asked)
            async for episode in run_episodes(
                engine, work, constitution.principles, config, shots=shots
            ):
                made.calls += episode.calls
                made.tokens += episode.tokens
                made.pairs += sum(bool(s.revision and s.revision.usable) for s in episode.steps)
    seconds = time.monotonic() - began
    slots = sum(each.speed.slots for each in servers) * seconds
    read, cached = (sum(getattr(s.usage, name) for s in servers) for name in ("read", "cached"))
    return {
        "order": how,
        "pairs": made.pairs,
        "calls": made.calls,
        "seconds": round(seconds, 1),
        "pairs_per_second": round(made.pairs / seconds, 2),
        "tokens_out_per_second": round(made.tokens / seconds),
        "prefix_cache_hits": round(cached / max(1, read + cached), 3),
        "utilisation": round(sum(each.usage.slot_seconds for each in servers) / slots, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--few-shot", type=int, default=4, help="worked examples in each call")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    chosen = parser.parse_args()
    rows = []
    for how in ("example", "ours"):
        row = run_simulated(measure(how, chosen.prompts, chosen.servers, chosen.few_shot))
        rows.append(row)
        print("  ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.items()))
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
