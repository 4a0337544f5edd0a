"""Making pairs as flows make them, in front of a real server: for benchmarks against others.

made = await ours(bench, prompts)
print(made.pairs, made.calls)
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.generation.example import Counted
from benchmarks.generation.served import Served
from benchmarks.generation.vllm_server import NAME
from ccai_core.constitution import Constitution
from ccai_core.episodes import GenerationConfig
from ccai_core.journal import Journal, Recorded
from ccai_core.models import ModelRef
from ccai_core.prompts.scenarios import shipped_scenarios
from ccai_core.scheduling import run_episodes
from ccai_core.types import Call, Completion, Prompt


@dataclass(frozen=True)
class Bench:
    """What is compared on, and with what."""

    url: str
    model: ModelRef
    constitution: Constitution
    config: GenerationConfig
    places: int
    """Calls that ours keeps in flight."""


async def ours(bench: Bench, prompts: Sequence[Prompt], sample: int = 0) -> Counted:
    """Make pairs as `make_pairs` schedules them, journal and all; `sample` is part of the seeds."""
    made = Counted()
    shots = bench.constitution.shots(bench.config.few_shot)
    served = Served((bench.url,), bench.places, NAME)
    with tempfile.TemporaryDirectory() as folder, Journal.open(Path(folder) / "calls") as journal:
        async with served(bench.model) as engine:
            recorded = Recorded(_Noting(engine, made), journal)
            episodes = run_episodes(
                recorded, ((prompt, sample) for prompt in prompts),
                bench.constitution.principles, bench.config, shots=shots,
            )  # fmt: skip
            async for episode in episodes:
                for step in episode.steps:
                    # Without a whole response and critique no revision is asked for.
                    made.pairs += step.revision is not None and step.revision.usable
    made.usable = made.pairs
    made.calls, made.tokens = len(made.asked), recorded.tokens_out
    return made


class _Noting:
    """Keeps the conversations, in the order in which they were asked."""

    def __init__(self, engine: Any, made: Counted) -> None:
        self._engine, self._made = engine, made
        self.model = engine.model

    @property
    def room(self) -> int | None:
        return self._engine.room  # type: ignore[no-any-return]

    async def generate(self, call: Call) -> Completion:
        noted: dict[str, Any] = {"call": call, "tokens": 0}
        self._made.asked.append(noted)
        completion: Completion = await self._engine.generate(call)
        noted["tokens"] = completion.completion_tokens
        return completion


def training_prompts(start: int, count: int) -> list[Prompt]:
    """Return so many of the shipped scenarios of the train side, beginning anew at their end."""
    scenarios = [each for each in shipped_scenarios() if each.split == "train"]
    if count > len(scenarios):
        raise SystemExit(f"There are {len(scenarios)} prompts, not {count}.")
    return [scenarios[(start + number) % len(scenarios)] for number in range(count)]
