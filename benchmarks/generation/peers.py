r"""datatrove's inference runner and distilabel against ours: the same pairs, the same vLLM server.

All make the same pairs: the same prompts, system turn and principles, the same words, sampling and
limits, one response shared by its principles, no critique of a response that was cut off. Each peer
runs in an environment of its own, by a small script beside this one, with as many calls at a time
as is best for it. Who goes first changes from round to round. What a run came to is read from the
server's counters, from the first call to the last answer: starting a peer costs it nothing, but for
`client_cores`, the CPU seconds of a client for each of these seconds, imports included.

    python -m venv trove && trove/bin/pip install datatrove aiosqlite orjson aiofiles httpx
    python -m venv label && label/bin/pip install "distilabel[openai]" requests
    python benchmarks/generation/peers.py --python vllm-env/bin/python \
        --datatrove trove/bin/python --distilabel label/bin/python
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

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
from ccai_core.episodes import GenerationConfig, opening, revise  # noqa: E402
from ccai_core.models import resolve_model  # noqa: E402
from ccai_core.types import Prompt, fingerprint  # noqa: E402

PEERS = ("datatrove", "distilabel")
_LONGEST_S = 3600


def work(bench: Bench, prompts: Sequence[Prompt], sample: int, at_once: int) -> dict[str, Any]:
    """Return what a peer is to make, as JSON that needs none of our code."""
    config, shots = bench.config, bench.constitution.shots(bench.config.few_shot)
    return {
        "url": bench.url, "model": NAME, "tokenizer": str(bench.model.path), "at_once": at_once,
        "sampling": {"temperature": config.temperature, "top_p": config.top_p},
        "repetition_penalty": config.repetition_penalty,
        "tokens": {
            "response": config.response_tokens, "critique": config.critique_tokens,
            "revision": config.revision_tokens,
        },
        "prompts": [
            {
                "id": prompt.id, "seed": int(fingerprint([prompt.id, sample], 8), 16),
                "messages": [
                    {"role": turn.role, "content": turn.content}
                    for turn in opening(prompt, config, shots)
                ],
                "principles": [
                    {
                        "id": principle.id, "critique": principle.critique,
                        "revision": revise(principle, prompt),
                    }
                    for principle in bench.constitution.principles
                ],
            }
            for prompt in prompts
        ],
    }  # fmt: skip


def peer(python: str, name: str, asked: dict[str, Any]) -> int:
    """Run a peer's script; return how many pairs it wrote."""
    script = Path(__file__).with_name(f"peer_{name}.py")
    with tempfile.TemporaryDirectory() as folder:
        path, out, log = (Path(folder) / part for part in ("work.json", "pairs.jsonl", "log"))
        path.write_text(json.dumps(asked), encoding="utf-8")
        with log.open("wb") as file:
            ended = subprocess.run(  # noqa: S603 - our own words
                [python, str(script), str(path), str(out)], stdout=file, stderr=file, cwd=folder,
                timeout=_LONGEST_S,
            )  # fmt: skip
        if ended.returncode:
            raise SystemExit(f"{script.name} failed:\n{log.read_text(errors='replace')[-3000:]}")
        lines = out.read_text(encoding="utf-8").splitlines()
    return sum(all(json.loads(line).values()) for line in lines)


def run(bench: Bench, name: str, chosen: argparse.Namespace, number: int) -> dict[str, Any]:
    """Let one of them make its pairs; return its row."""
    prompts = training_prompts(number * chosen.prompts, chosen.prompts)
    before = sum(os.times()[:4])  # ours, and that of peers that have ended
    with Watch(bench.url) as watch:
        if name == "ours":
            pairs = asyncio.run(ours(bench, prompts, number)).pairs
        else:
            at_once = getattr(chosen, f"{name}_at_once") or chosen.places
            asked = work(bench, prompts, number, at_once)
            pairs = peer(getattr(chosen, name), name, asked)
    return {
        "how": name, "pairs": pairs, "calls": watch.calls, "seconds": round(watch.seconds, 1),
        "pairs_per_second": round(pairs / watch.seconds, 3),
        "pairs_per_engine_second": per_engine_second(pairs, watch),
        "tokens_per_second": round(watch.tokens_out / watch.seconds, 1),
        "cached": round(watch.cached, 3), "in_flight": round(watch.in_flight, 1),
        "preempted": watch.preempted,
        "client_cores": round((sum(os.times()[:4]) - before) / watch.seconds, 2),
        "engine_cores": round(watch.engine_seconds / watch.seconds, 2),
        "tokens_per_pair": round(watch.tokens_out / max(1, pairs)),
    }  # fmt: skip


def compare(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the ratio of the medians, ours over each peer's."""

    def median(how: str, what: str) -> float:
        return statistics.median(row[what] for row in rows if row["how"] == how)

    return {
        f"ours_over_{name}_{what}": round(median("ours", what) / median(name, what), 3)
        for name in PEERS
        if any(row["how"] == name for row in rows)
        for what in ("pairs_per_second", "tokens_per_second", "pairs_per_engine_second")
        if all(row[what] is not None for row in rows)
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--prompts", type=int, default=48, help="prompts of each run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, in turn")
    parser.add_argument("--few-shot", type=int, default=0, help="worked examples in each call")
    for name in PEERS:
        parser.add_argument(f"--{name}", help=f"Python of an environment with {name}")
        parser.add_argument(
            f"--{name}-at-once", type=int, help="calls (or rows) at a time; default: --places"
        )
    chosen = parser.parse_args()
    model = resolve_model(chosen.model)
    names = ["ours", *(name for name in PEERS if getattr(chosen, name))]
    config = GenerationConfig(few_shot=chosen.few_shot)
    rows: list[dict[str, Any]] = []
    with vllm_server(chosen, model) as url:
        bench = Bench(url, model, load_constitutional_config(), config, chosen.places)
        asyncio.run(ours(bench, training_prompts(0, 1), 10**6))  # a server's first calls are slow
        for number in range(chosen.rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                rows.append(run(bench, name, chosen, number))
                show(rows[-1])
    summary = compare(rows)
    show(summary)
    write(chosen.json, {"settings": vars(chosen) | {"json": None}, "rows": rows, **summary})
    return 0


if __name__ == "__main__":
    sys.exit(main())
