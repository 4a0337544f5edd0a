"""The order of calls in llm-swarm's constitutional-ai example, whoever answers them.

Each prompt meets one principle drawn at random, its three calls follow each other, all prompts are
gathered at once behind one first-come semaphore, and nothing says which calls belong together.

    made = await in_its_order(ask, constitution, config, prompts, places=500, seed=0)
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ccai_core.constitution import Constitution
from ccai_core.episodes import GenerationConfig, opening, revise
from ccai_core.types import Message, Prompt, assistant, user


class Said(NamedTuple):
    """An answer."""

    text: str
    is_whole: bool
    tokens: int


@dataclass
class Counted:
    """What came of a run. A pair is a revision that is whole: the example filters nothing."""

    pairs: int = 0
    usable: int = 0
    """Pairs whose response and critique are whole too, which is what ours trains on."""
    calls: int = 0
    tokens: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)


Ask = Callable[[Sequence[Message], int], Awaitable[Said]]
"""Answers a conversation with so many tokens at most."""


async def in_its_order(
    ask: Ask,
    constitution: Constitution,
    config: GenerationConfig,
    prompts: Sequence[Prompt],
    places: int,
    seed: int,
) -> Counted:
    """Make a pair of each prompt, in the example's order."""
    semaphore, dice, made = asyncio.Semaphore(places), random.Random(seed), Counted()
    shots = constitution.shots(config.few_shot)

    async def one(turns: Sequence[Message], tokens: int) -> Said:
        async with semaphore:
            said = await ask(turns, tokens)
        made.calls += 1
        made.tokens += said.tokens
        return said

    async def process(prompt: Prompt) -> None:
        principle = dice.choice(constitution.principles)
        turns, is_whole = opening(prompt, config, shots), True
        for words, tokens in (
            (principle.critique, config.response_tokens),
            (revise(principle, prompt), config.critique_tokens),
        ):
            said = await one(turns, tokens)
            is_whole = is_whole and said.is_whole and bool(said.text.strip())
            turns += [assistant(said.text or " "), user(words)]
        last = await one(turns, config.revision_tokens)
        made.pairs += last.is_whole
        made.usable += is_whole and last.is_whole and bool(last.text.strip())

    await asyncio.gather(*map(process, prompts))
    return made
