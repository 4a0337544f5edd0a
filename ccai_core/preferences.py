"""Preference pairs from episodes: filtered with reasons, balanced over principles, in TRL's format.

Episodes run without a pause, and are judged in the order of the prompts. An episode is asked under
the principles that still missed pairs a fixed number of episodes before it. So what is asked does
not depend on what finishes first, and a killed run continues to the same pairs.

    made = await make_pairs(engine, prompts, constitution, config, max_pairs=500)
    write_pairs(made.pairs, path)
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

from pydantic import Field

from ccai_core.config import Config
from ccai_core.constitution import Constitution, Principle
from ccai_core.episodes import Episode, GenerationConfig
from ccai_core.errors import ConfigError, DataError
from ccai_core.files import write_whole
from ccai_core.pair_collector import Funnel, PairCollector, PairSet, Rejected, candidate_of
from ccai_core.quality import Candidate, QualityConfig
from ccai_core.quality_review import Classify, Review, Reviewer
from ccai_core.scheduling import AHEAD, run_episodes
from ccai_core.types import Choose, Generate, Prompt, Score
from ccai_core.types import fingerprint as content_hash

__all__ = ["Funnel", "PairSet", "PreferenceConfig", "Rejected", "make_pairs", "write_pairs"]

# Episodes ahead of the last one judged. Many keep many servers busy while one text is slow; few let
# go soon of a principle that has its share. No setting: it decides what is asked.
_LEAST_AHEAD = 32


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
    folder: Path | None = None,
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
        folder: where pairs are while they are many; None: where temporary files are.

    Raises:
        ConfigError: `max_pairs` is less than 1, or the engine cannot judge.
        DataError: no prompts, a prompt of the test side, a restricted one, or no pair came out.
    """
    _check(prompts, config, max_pairs)
    quality = config.quality
    reviewer = Reviewer(quality, judge or _judge_of(engine, quality), classify)
    collector = PairCollector(constitution, quality, engine.model, max_pairs, prompts, folder)
    asked = _Asked(constitution, collector)
    shown = _Shown(collector, max_pairs, on_progress)
    reviewing = _Reviewing(reviewer, shown.finished)
    episodes = run_episodes(
        engine,
        _passes(prompts, config),
        asked.at,
        config.generation,
        shots=constitution.shots(config.generation.few_shot),
        ahead=asked.ahead,
        on_episode=reviewing.start,
    )
    async with aclosing(reviewing.in_order(episodes)) as reviewed:
        async for episode, reviews in reviewed:
            collector.add(episode, asked.at(collector.episodes), reviews)
            shown.taken(reviews)
            if asked.is_enough():
                # In order, so a run that was killed stops at the same one; what is still open is
                # given up.
                break
    made = collector.result()
    if not made.pairs:
        raise DataError(
            "Not one pair passed the filters for every principle. Why: "
            f"{made.funnel.rejected}. Try a larger model, longer token limits or more prompts."
        )
    return made


class _Asked:
    """Under which principles each episode is asked, by its place in the order."""

    def __init__(self, constitution: Constitution, collector: PairCollector) -> None:
        self._constitution, self._collector = constitution, collector
        self.ahead = min(max(_LEAST_AHEAD, collector.quota), AHEAD)
        # From which place on, which: it changes once a principle at most.
        self._known: list[tuple[int, tuple[Principle, ...]]] = [(0, constitution.principles)]

    def at(self, index: int) -> tuple[Principle, ...]:
        """Return the principles of an episode, known as soon as it may be opened."""
        return next(principles for start, principles in reversed(self._known) if start <= index)

    def is_enough(self) -> bool:
        """Whether every principle has its share; else note which an episode is asked later on."""
        missing = self._collector.missing()
        left = tuple(p for p in self._constitution.principles if missing[p.id] > 0)
        if left and left != self._known[-1][1]:
            self._known.append((self._collector.episodes + self.ahead, left))
        return not left


class _Shown:
    """The count that people see: also of pairs whose turn has not come yet."""

    def __init__(
        self, collector: PairCollector, max_pairs: int, on_progress: Report | None
    ) -> None:
        self._collector, self._max_pairs, self._report = collector, max_pairs, on_progress
        self._waiting: Counter[str] = Counter()
        self._pairs = self._calls = 0

    def finished(self, episode: Episode, reviews: Reviews) -> None:
        """Count an episode that is through."""
        self._calls += episode.calls
        self._waiting.update(p for p, review in reviews.items() if not review.reason)
        if self._report:
            quota = self._collector.quota
            kept = self._collector.kept.items()
            pairs = sum(min(quota, len(rows) + self._waiting[p]) for p, rows in kept)
            # Later ones may turn out to be duplicates: the count waits then, and never goes back.
            self._pairs = max(self._pairs, min(pairs, self._max_pairs))
            self._report(self._pairs, self._max_pairs, self._calls)

    def taken(self, reviews: Reviews) -> None:
        """Count an episode that the collector has now."""
        self._waiting.subtract(p for p, review in reviews.items() if not review.reason)


class _Reviewing:
    """Has episodes reviewed as they finish, and hands them on in the order of the prompts.

    Args:
        reviewer: asks the models, if there are any.
        on_reviewed: told of each episode once its reviews are there, in any order.
    """

    def __init__(self, reviewer: Reviewer, on_reviewed: Callable[[Episode, Reviews], None]) -> None:
        self._reviewer, self._on_reviewed = reviewer, on_reviewed
        self._open: dict[int, asyncio.Task[Reviews]] = {}
        self._read: dict[int, Reviews] = {}

    def start(self, episode: Episode) -> None:
        """Begin to review a finished episode."""
        candidates = {
            step.principle: candidate_of(episode, step)
            for step in episode.steps
            if step.revision and step.revision.usable
        }
        if self._reviewer.asks:
            self._open[id(episode)] = asyncio.create_task(self._review(episode, candidates))
        else:
            reviews = {p: Review(self._reviewer.read(each)) for p, each in candidates.items()}
            self._read[id(episode)] = reviews
            self._on_reviewed(episode, reviews)

    async def _review(self, episode: Episode, candidates: Mapping[str, Candidate]) -> Reviews:
        found = await asyncio.gather(*map(self._reviewer.review, candidates.values()))
        reviews = dict(zip(candidates, found, strict=True))
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
                    yield episode, await reviewing if reviewing else self._read.pop(id(episode))
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


def write_pairs(pairs: Sequence[Config], path: Path) -> None:
    """Write one JSON object a line, whole or not at all."""
    lines = (json.dumps(pair.model_dump(), ensure_ascii=False) + "\n" for pair in pairs)
    write_whole(path, lines)
