"""Preference pairs from episodes: filtered with reasons, balanced over principles, in TRL's format.

Generation goes round by round: each round asks for as many prompts as the pairs still missing need
at the yield seen so far, and only for the principles that still miss some. What a round holds
depends on finished rounds alone, so a killed run continues to the same pairs.

    made = await make_pairs(engine, prompts, constitution, config, max_pairs=500)
    write_pairs(made.pairs, path)
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

from pydantic import Field

from ccai_core.config import Config
from ccai_core.constitution import Constitution, Principle
from ccai_core.episodes import Episode, GenerationConfig, run_episodes
from ccai_core.errors import ConfigError, DataError
from ccai_core.files import write_whole
from ccai_core.pair_collector import Funnel, PairCollector, PairSet, Rejected, candidate_of
from ccai_core.quality import QualityConfig
from ccai_core.quality_review import Classify, Review, Reviewer
from ccai_core.types import Choose, Generate, Prompt, Score
from ccai_core.types import fingerprint as content_hash

__all__ = ["Funnel", "PairSet", "PreferenceConfig", "Rejected", "make_pairs", "write_pairs"]

# Before anything is known: the share of a small model's episodes that give a pair per principle.
_FIRST_YIELD = 0.4
# A round ends with half-empty batches, so few large ones are faster than many that just fit.
_SMALLEST_ROUND, _MARGIN = 16, 1.2


class PreferenceConfig(Config):
    """How pairs are made and which are kept; how many is said to `make_pairs`."""

    max_passes: int = Field(
        10, ge=1, le=100, description="Times the prompts may be gone through, with new seeds."
    )
    seed: int = Field(0, ge=0, description="Order of prompts, and seed of every call.")
    include_restricted: bool = Field(
        False, description="Make pairs of members-only prompts too; their text is in every pair."
    )
    generation: GenerationConfig = Field(
        default=GenerationConfig(), description="How texts are written."
    )
    quality: QualityConfig = Field(default=QualityConfig(), description="Which pairs are kept.")


Report = Callable[[int, int, int], None]
"""Called with (pairs kept so far, pairs wanted, calls finished)."""
Reviews = Mapping[str, Review]
"""What models say of an episode's candidates, by principle."""


async def make_pairs(
    engine: Generate,
    prompts: Sequence[Prompt],
    constitution: Constitution,
    config: PreferenceConfig,
    max_pairs: int,
    on_progress: Report | None = None,
    *,
    judge: Choose | None = None,
    classify: Classify | None = None,
) -> PairSet:
    """Run episodes until every principle has its share of `max_pairs` or the passes are used up.

    Args:
        engine: writes responses, critiques and revisions.
        prompts: what is asked; none of the test side.
        constitution: the principles.
        config: how it is done.
        max_pairs: pairs to make, over all principles together.
        on_progress: told how far it is.
        judge: compares answers where `config.quality.judge` is not "none"; None: the engine.
        classify: rates revisions; None: `config.quality.toxicity_model`, if there is one.

    Raises:
        ConfigError: `max_pairs` is less than 1, or the engine cannot judge.
        DataError: no prompts, a prompt of the test side, a restricted one, or no pair came out.
    """
    _check(prompts, config, max_pairs)
    quality = config.quality
    reviewer = Reviewer(quality, judge or _judge_of(engine, quality), classify)
    collector = PairCollector(constitution, quality, engine.model, max_pairs, prompts)
    # Fed as episodes finish, for the display: the other one takes them in order, which at times
    # means waiting long for one of them.
    shown = PairCollector(constitution, quality, engine.model, max_pairs)
    queue = _passes(prompts, config)
    shots = constitution.shots(config.generation.few_shot)
    while missing := {p: n for p, n in collector.missing().items() if n > 0}:
        asked = [constitution.principle(p) for p in missing]
        work = [w for w, _ in zip(queue, range(_round_size(collector, missing)), strict=False)]
        if not work:
            break

        def count(episode: Episode, reviews: Reviews, asked: Sequence[Principle] = asked) -> None:
            shown.add(episode, asked, reviews)
            if on_progress:
                on_progress(sum(map(len, shown.kept.values())), max_pairs, shown.calls)

        reviewing = _Reviewing(reviewer, count)
        episodes = run_episodes(
            engine, work, asked, config.generation, shots=shots, on_episode=reviewing.start
        )
        async with aclosing(reviewing.in_order(episodes)) as reviewed:
            async for episode, reviews in reviewed:
                collector.add(episode, asked, reviews)
                if max(collector.missing().values()) <= 0:
                    # In order, so a run that was killed stops at the same one; what is still open
                    # is given up.
                    break
    made = collector.result()
    if not made.pairs:
        raise DataError(
            "Not one pair passed the filters for every principle. Why: "
            f"{made.funnel.rejected}. Try a larger model, longer token limits or more prompts."
        )
    return made


class _Reviewing:
    """Has episodes reviewed as they finish, and hands them on in the order of the prompts.

    Args:
        reviewer: asks the models, if there are any.
        on_reviewed: told of each episode once its reviews are there, in any order.
    """

    def __init__(self, reviewer: Reviewer, on_reviewed: Callable[[Episode, Reviews], None]) -> None:
        self._reviewer, self._on_reviewed = reviewer, on_reviewed
        self._open: dict[int, asyncio.Task[Reviews]] = {}

    def start(self, episode: Episode) -> None:
        """Begin to review a finished episode."""
        if self._reviewer.asks:
            self._open[id(episode)] = asyncio.create_task(self._review(episode))
        else:
            self._on_reviewed(episode, {})

    async def _review(self, episode: Episode) -> Reviews:
        whole = [step for step in episode.steps if step.revision and step.revision.usable]
        found = await asyncio.gather(
            *(self._reviewer.review(candidate_of(episode, step)) for step in whole)
        )
        reviews = {step.principle: review for step, review in zip(whole, found, strict=True)}
        self._on_reviewed(episode, reviews)
        return reviews

    async def in_order(
        self, episodes: AsyncGenerator[Episode]
    ) -> AsyncGenerator[tuple[Episode, Reviews]]:
        """Yield each episode with its reviews; what is still open at the end is given up."""
        try:
            async with aclosing(episodes):
                async for episode in episodes:
                    reviewing = self._open.pop(id(episode), None)
                    yield episode, await reviewing if reviewing else {}
        finally:
            for task in self._open.values():
                task.cancel()
            await asyncio.gather(*self._open.values(), return_exceptions=True)


def _check(prompts: Sequence[Prompt], config: PreferenceConfig, max_pairs: int) -> None:
    if max_pairs < 1:
        raise ConfigError(
            f"--max-pairs is {max_pairs}; give how many pairs to make over all principles "
            "together, at least 1, e.g. --max-pairs 500."
        )
    if not prompts:
        raise DataError("There are no prompts to make pairs from.")
    if leaks := [p.id for p in prompts if p.split == "test"]:
        raise DataError(
            f"{len(leaks)} prompts are on the test side (first: {leaks[0]}) and must not be "
            "trained on; select those whose split is 'train' or 'validation'."
        )
    restricted = [p.id for p in prompts if p.restricted]
    if restricted and not config.include_restricted:
        raise DataError(
            f"{len(restricted)} prompts are members-only (first: {restricted[0]}), and every pair "
            "holds the text of its prompt. Leave them out, or set preferences.include_restricted "
            "where all who can read the pairs may read the prompts."
        )


def _judge_of(engine: Generate, quality: QualityConfig) -> Choose | None:
    if quality.judge == "none":
        return None
    if isinstance(engine, Score):
        return engine
    raise ConfigError(
        f"preferences.quality.judge is {quality.judge!r}, but the engine of {engine.model} gives "
        "texts only, no log-probabilities to compare answers by. Set it to none."
    )


def _passes(prompts: Sequence[Prompt], config: PreferenceConfig) -> Iterator[tuple[Prompt, int]]:
    for sample in range(config.max_passes):
        order = sorted(prompts, key=lambda p: content_hash([config.seed, sample, p.id, p.text]))
        for prompt in order:
            yield prompt, config.seed * config.max_passes + sample


def _round_size(collector: PairCollector, missing: dict[str, int]) -> int:
    tried = collector.episodes
    rates = [
        len(collector.kept[p]) / tried if tried else _FIRST_YIELD  # pairs an episode
        for p in missing
    ]
    needed = max(n / max(rate, 0.05) for n, rate in zip(missing.values(), rates, strict=True))
    return max(_SMALLEST_ROUND, math.ceil(_MARGIN * needed))


def write_pairs(pairs: Sequence[Config], path: Path) -> None:
    """Write one JSON object a line, whole or not at all."""
    lines = (json.dumps(pair.model_dump(), ensure_ascii=False) + "\n" for pair in pairs)
    write_whole(path, lines)
