"""The scheduling of llm-swarm's constitutional-ai example against ours, on one real vLLM server.

The example, as published: each prompt meets one principle drawn at random, its three calls follow
each other, all prompts are gathered at once behind one first-come semaphore, and nothing says which
calls belong together. Ours: one response for all principles, begun prompts first. Both ask the same
prompts in the same words with the same worked examples before them, in turn, three times. A pair is
a revision that is whole; what filters would say of it is left aside, since the example has none.

With --bench, "vllm bench" is the engine's own benchmark with the very conversations that ours
asked, as many at a time: what the engine can do at its best. It wants vLLM's extra `bench`.

    python benchmarks/generation/llm_swarm.py --python vllm-env/bin/python
    python benchmarks/generation/llm_swarm.py --python vllm-env/bin/python --prompts 96 --rounds 5
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import AsyncInferenceClient

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.generation.example import Counted, Said, in_its_order  # noqa: E402
from benchmarks.generation.served import Served  # noqa: E402
from ccai_core.constitution import Constitution, load_constitutional_config  # noqa: E402
from ccai_core.episodes import GenerationConfig  # noqa: E402
from ccai_core.journal import Journal, Recorded  # noqa: E402
from ccai_core.journal_lines import read_lines  # noqa: E402
from ccai_core.models import ModelRef, resolve_model  # noqa: E402
from ccai_core.prompts.scenarios import shipped_scenarios  # noqa: E402
from ccai_core.scheduling import run_episodes  # noqa: E402
from ccai_core.types import Call, Completion, Message, Prompt  # noqa: E402
from infra.fleet_metrics import metric_sums  # noqa: E402

_NAME, _START_S = "benchmark", 300
_CACHE = ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total")


@dataclass
class Made(Counted):
    """What one run came to."""

    seconds: float = 0.0
    hit_rate: float = 0.0

    @property
    def pairs_per_second(self) -> float:
        """Whole revisions a second."""
        return self.pairs / self.seconds

    @property
    def tokens_per_second(self) -> float:
        """Tokens written a second."""
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Bench:
    """What is compared on, and with what."""

    url: str
    model: ModelRef
    constitution: Constitution
    config: GenerationConfig
    places: int


async def example(bench: Bench, prompts: Sequence[Prompt], seed: int) -> Counted:
    """Make pairs as llm-swarm's example does, with the client that it uses."""
    client = AsyncInferenceClient(f"{bench.url}/v1", timeout=3600)
    limits = bench.config

    async def ask(turns: Sequence[Message], tokens: int) -> Said:
        answer = await client.chat_completion(
            [{"role": each.role, "content": each.content} for each in turns],
            model=_NAME, max_tokens=tokens, temperature=limits.temperature, top_p=limits.top_p,
            seed=seed, extra_body={"repetition_penalty": limits.repetition_penalty},
        )  # fmt: skip
        choice = answer.choices[0]
        is_whole = choice.finish_reason == "stop"
        return Said(choice.message.content or "", is_whole, answer.usage.completion_tokens)

    return await in_its_order(ask, bench.constitution, limits, prompts, bench.places, seed)


async def ours(bench: Bench, prompts: Sequence[Prompt], seed: int) -> Counted:
    """Make pairs as `make_pairs` schedules them, journal and all."""
    made = Counted()
    shots = bench.constitution.shots(bench.config.few_shot)
    served = Served((bench.url,), bench.places, _NAME)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "calls.jsonl"
        with Journal.open(path) as journal:
            async with served(bench.model) as engine:
                noting = _Noting(engine, made)
                recorded = Recorded(noting, journal)
                episodes = run_episodes(
                    recorded, ((prompt, seed) for prompt in prompts),
                    bench.constitution.principles, bench.config, shots=shots,
                )  # fmt: skip
                async for episode in episodes:
                    made.pairs += sum(
                        step.revision is not None and step.revision.usable for step in episode.steps
                    )
        made.calls = sum(1 for _ in read_lines(path))
    made.tokens = recorded.tokens_out
    return made


class _Noting:
    """Keeps the conversations, for the engine's own benchmark."""

    def __init__(self, engine: Any, made: Counted) -> None:
        self._engine, self._made = engine, made
        self.model = engine.model

    @property
    def room(self) -> int | None:
        return self._engine.room  # type: ignore[no-any-return]

    async def generate(self, call: Call) -> Completion:
        completion: Completion = await self._engine.generate(call)
        self._made.asked.append({"call": call, "tokens": completion.completion_tokens})
        return completion


def metrics(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics") as answer:  # noqa: S310 - our own server
        return metric_sums(answer.read().decode())


def forget_prefixes(url: str) -> None:
    """Empty the prefix cache: no run is to live on what another has read."""
    request = urllib.request.Request(f"{url}/reset_prefix_cache", method="POST")  # noqa: S310
    urllib.request.urlopen(request).close()  # noqa: S310 - our own server


def timed(bench: Bench, how: Any, prompts: Sequence[Prompt], seed: int) -> Made:
    forget_prefixes(bench.url)
    before, began = metrics(bench.url), time.monotonic()
    counted = asyncio.run(how(bench, prompts, seed))
    made = Made(**vars(counted), seconds=time.monotonic() - began)
    asked, found = (metrics(bench.url)[name] - before.get(name, 0.0) for name in _CACHE)
    made.hit_rate = found / asked if asked else 0.0
    return made


def engine_alone(bench: Bench, python: str, asked: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Run vLLM's own benchmark with the conversations that ours asked; return what it says."""
    from ccai_core.chat_tokens import ChatTokens
    from ccai_core.models import load_tokenizer

    tokens = ChatTokens(load_tokenizer(bench.model))
    with tempfile.TemporaryDirectory() as name:
        data, found = Path(name) / "calls.jsonl", Path(name) / "found.json"
        rows = (
            {"prompt": tokens.as_text(list(each["call"].messages)), "output_tokens": each["tokens"]}
            for each in asked
        )
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        forget_prefixes(bench.url)
        words = [
            python, "-m", "vllm.entrypoints.cli.main", "bench", "serve",
            f"--base-url={bench.url}", f"--model={_NAME}", f"--tokenizer={bench.model.path}",
            "--dataset-name=custom", f"--dataset-path={data}", "--custom-output-len=-1",
            "--skip-chat-template", "--endpoint=/v1/completions", "--disable-shuffle",
            f"--num-prompts={len(asked)}", f"--max-concurrency={bench.places}",
            "--ignore-eos", "--save-result", f"--result-filename={found}",
        ]  # fmt: skip
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own words
        said = json.loads(found.read_text(encoding="utf-8"))
    return {"tokens_per_second": said["output_throughput"], "seconds": said["duration"]}


@contextlib.contextmanager
def vllm(python: str, model: ModelRef, places: int, cache_gb: int) -> Iterator[str]:
    """Run a vLLM server on the CPU; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [
        python, "-m", "vllm.entrypoints.openai.api_server", f"--model={model.path}",
        f"--served-model-name={_NAME}", f"--port={port}", "--host=127.0.0.1",
        f"--max-num-seqs={places}", "--max-model-len=4096", "--enable-prefix-caching",
        "--dtype=bfloat16", "--enforce-eager",
    ]  # fmt: skip
    environment = os.environ | {
        "VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": str(cache_gb),
        "PYTHONPATH": "", "VLLM_LOGGING_LEVEL": "WARNING",
    }  # fmt: skip
    environment.pop("OMP_NUM_THREADS", None)
    log = tempfile.NamedTemporaryFile(prefix="vllm-", suffix=".log", delete=False)  # noqa: SIM115
    server = subprocess.Popen(  # noqa: S603 - our own words
        words, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _START_S
        while True:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"vLLM did not start; it said: {log.name}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/health").close()  # noqa: S310 - our own server
                break
            time.sleep(1)
        yield url
    finally:
        server.terminate()
        server.wait()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", required=True, help="Python of an environment with vLLM")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--prompts", type=int, default=64, help="prompts of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--places", type=int, default=64, help="calls at a time")
    parser.add_argument("--cache-gb", type=int, default=1, help="vLLM's room for prefixes")
    parser.add_argument("--few-shot", type=int, default=4, help="worked examples in each call")
    parser.add_argument("--bench", action="store_true", help="run vLLM's own benchmark as well")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    chosen = parser.parse_args()
    model = resolve_model(chosen.model)
    config = GenerationConfig(few_shot=chosen.few_shot)
    constitution = load_constitutional_config()
    scenarios = [each for each in shipped_scenarios() if each.split == "train"]
    rows: list[dict[str, Any]] = []
    with vllm(chosen.python, model, chosen.places, chosen.cache_gb) as url:
        bench = Bench(url, model, constitution, config, chosen.places)
        asyncio.run(ours(bench, scenarios[:4], 10**6))  # the first calls of a server are slow
        for number in range(chosen.rounds):
            start = number * chosen.prompts % max(1, len(scenarios) - chosen.prompts)
            prompts = scenarios[start : start + chosen.prompts]
            made = {}
            for how in (example, ours) if number % 2 == 0 else (ours, example):
                made[how] = timed(bench, how, prompts, number)
                rows.append(row(how.__name__, made[how]))
                show(rows[-1])
            if chosen.bench:
                alone = engine_alone(bench, chosen.python, made[ours].asked)
                rows.append({"how": "vllm bench", **alone})
                show(rows[-1])
    summary = compare(rows)
    print(re.sub(r"[{}']", "", str(summary)))
    if chosen.json:
        chosen.json.write_text(json.dumps({"rows": rows, **summary}, indent=2) + "\n", "utf-8")
    return 0


def row(how: str, made: Made) -> dict[str, Any]:
    return {
        "how": how, "pairs": made.pairs, "calls": made.calls, "seconds": round(made.seconds, 1),
        "pairs_per_second": round(made.pairs_per_second, 3),
        "tokens_per_second": round(made.tokens_per_second, 1),
        "cached": round(made.hit_rate, 3),
    }  # fmt: skip


def show(of: dict[str, Any]) -> None:
    print("  ".join(f"{name} {value}" for name, value in of.items()), flush=True)


def compare(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the medians' ratios."""

    def median(how: str, what: str) -> float:
        return statistics.median(each[what] for each in rows if each["how"] == how)

    pairs, tokens = "pairs_per_second", "tokens_per_second"
    found = {"pairs_ours_over_example": median("ours", pairs) / median("example", pairs)}
    if any(each["how"] == "vllm bench" for each in rows):
        limit = median("vllm bench", tokens)
        found["tokens_ours_over_engine_alone"] = median("ours", tokens) / limit
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    sys.exit(main())
