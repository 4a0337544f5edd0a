"""The scheduling of llm-swarm's constitutional-ai example against ours, on one real vLLM server.

The example, as published: each prompt meets one principle drawn at random, its three calls follow
each other, all prompts are gathered at once behind one first-come semaphore, and nothing says which
calls belong together. So every prompt is answered before the first is criticised, and by then the
server's cache holds other prompts, if there are many for its size (44,849 in the published run).
Ours: one response for all principles, begun prompts first. Both ask the same prompts in the same
words with the same worked examples before them and the same sampling, in turn.

A pair is counted where response, critique and revision are whole: that is what ours trains on. The
example keeps what was cut off as well; "kept" counts its pairs by its own rule (a whole revision).

    python benchmarks/generation/llm_swarm.py --python vllm-env/bin/python
    python benchmarks/generation/llm_swarm.py --python vllm-env/bin/python --prompts 96 --rounds 5
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import AsyncInferenceClient

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.generation.example import Counted, Said, in_its_order  # noqa: E402
from benchmarks.generation.ours import Bench, ours, training_prompts  # noqa: E402
from benchmarks.generation.vllm_server import (  # noqa: E402
    NAME,
    Watch,
    add_arguments,
    per_engine_second,
    show,
    vllm_server,
    write,
)
from ccai_core.constitution import load_constitutional_config  # noqa: E402
from ccai_core.episodes import GenerationConfig  # noqa: E402
from ccai_core.models import resolve_model  # noqa: E402
from ccai_core.types import Message, Prompt  # noqa: E402


async def example(
    bench: Bench, prompts: Sequence[Prompt], seed: int, at_once: int = 500
) -> Counted:
    """Make pairs as llm-swarm's example does, with the client that it uses."""
    client = AsyncInferenceClient(f"{bench.url}/v1", timeout=3600)
    limits = bench.config

    async def ask(turns: Sequence[Message], tokens: int) -> Said:
        answer = await client.chat_completion(
            [{"role": each.role, "content": each.content} for each in turns],
            model=NAME, max_tokens=tokens, temperature=limits.temperature, top_p=limits.top_p,
            seed=seed, extra_body={"repetition_penalty": limits.repetition_penalty},
        )  # fmt: skip
        choice = answer.choices[0]
        is_whole = choice.finish_reason == "stop"
        return Said(choice.message.content or "", is_whole, answer.usage.completion_tokens)

    return await in_its_order(ask, bench.constitution, limits, prompts, at_once, seed)


How = Callable[[], Awaitable[Counted]]


def timed(url: str, name: str, how: How) -> dict[str, Any]:
    """Run one of them; return its row."""
    with Watch(url) as watch:
        made = asyncio.run(_awaited(how))
    usable = max(made.usable, 1)
    read = watch.tokens_in * (1 - watch.cached)
    return {
        "how": name, "pairs": made.usable, "kept": made.pairs, "calls": watch.calls,
        "seconds": round(watch.seconds, 1),
        "pairs_per_second": round(made.usable / watch.seconds, 3),
        "kept_per_second": round(made.pairs / watch.seconds, 3),
        "pairs_per_engine_second": per_engine_second(made.usable, watch),
        "tokens_per_second": round(watch.tokens_out / watch.seconds, 1),
        "calls_per_pair": round(watch.calls / usable, 2),
        "tokens_per_pair": round(watch.tokens_out / usable),
        "tokens_read_per_pair": round(read / usable),
        "cached": round(watch.cached, 3), "in_flight": round(watch.in_flight, 1),
        "preempted": watch.preempted,
    }  # fmt: skip


async def _awaited(how: How) -> Counted:
    return await how()


def compare(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the ratios of the medians, ours over the example's."""

    def median(how: str, what: str) -> float:
        return statistics.median(each[what] for each in rows if each["how"] == how)

    names = (
        "pairs_per_second", "pairs_per_engine_second", "kept_per_second", "tokens_per_second",
        "calls_per_pair", "tokens_per_pair", "tokens_read_per_pair",
    )  # fmt: skip
    known = [name for name in names if all(row[name] is not None for row in rows)]
    return {name: round(median("ours", name) / median("example", name), 3) for name in known}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--prompts", type=int, default=64, help="prompts of the example's runs")
    parser.add_argument(
        "--ours",
        type=int,
        help="prompts of our runs, four pairs from each (default: half)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, in turn")
    parser.add_argument(
        "--at-once", type=int, default=500, help="calls that the example sends at a time; it sends"
        " 500 to an instance"
    )  # fmt: skip
    parser.add_argument("--few-shot", type=int, default=4, help="worked examples in each call")
    parser.add_argument("--longest", type=int, help="most tokens of every answer (default: ours)")
    chosen = parser.parse_args()
    model = resolve_model(chosen.model)
    config = GenerationConfig(few_shot=chosen.few_shot)
    if chosen.longest:
        names = ("response_tokens", "critique_tokens", "revision_tokens")
        config = config.model_copy(update=dict.fromkeys(names, chosen.longest))
    rows: list[dict[str, Any]] = []
    with vllm_server(chosen, model) as url:
        bench = Bench(url, model, load_constitutional_config(), config, chosen.places)
        asyncio.run(ours(bench, training_prompts(0, 1), 10**6))  # a server's first calls are slow
        for number in range(chosen.rounds):
            start = number * chosen.prompts
            theirs = training_prompts(start, chosen.prompts)
            mine = training_prompts(start, chosen.ours or chosen.prompts // 2)
            runs: list[tuple[str, How]] = [
                ("example", lambda p=theirs, n=number: example(bench, p, n, chosen.at_once)),
                ("ours", lambda p=mine, n=number: ours(bench, p, n)),
            ]  # fmt: skip
            for name, how in runs if number % 2 == 0 else reversed(runs):
                rows.append(timed(url, name, how))
                show(rows[-1])
    summary = compare(rows)
    show({"ours over example": "", **summary})
    write(chosen.json, {"settings": vars(chosen) | {"json": None}, "rows": rows, **summary})
    return 0


if __name__ == "__main__":
    sys.exit(main())
