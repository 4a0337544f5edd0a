"""Preference pairs from episodes: filtered with reasons, balanced over principles, in TRL's format.

Generation goes round by round: each round asks for as many prompts as the pairs still missing need
at the yield seen so far, and only for the principles that still miss some. What a round holds
depends on finished rounds alone, so a killed run continues to the same pairs.

    made = await make_pairs(engine, prompts, constitution, config, max_pairs=500)
    write_pairs(made.pairs, path)
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Literal

from pydantic import Field

from ccai_core.config import Config
from ccai_core.constitution import Constitution, Principle
from ccai_core.episodes import Episode, GenerationConfig, Step, run_episodes
from ccai_core.errors import ConfigError, DataError
from ccai_core.files import write_whole
from ccai_core.quality import REASONS, PairFilter, QualityConfig, Reason
from ccai_core.types import Completion, Generate, PreferencePair, Prompt, assistant
from ccai_core.types import fingerprint as content_hash

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
    generation: GenerationConfig = Field(
        default=GenerationConfig(), description="How texts are written."
    )
    quality: QualityConfig = Field(default=QualityConfig(), description="Which pairs are kept.")


class Rejected(Config):
    """A pair that was not kept, for people who want to see why."""

    prompt_id: str = Field(description="Prompt.id.")
    principle: str = Field(description="Principle id.")
    reason: Reason = Field(description="Why; see quality.REASONS.")
    rejected: str = Field(description="The response.")
    critique: str = Field(description="The critique.")
    chosen: str = Field(description="The revision.")


class Funnel(Config):
    """How many fell where, from prompts to pairs."""

    episodes: int = Field(description="Prompts answered (counting passes).")
    candidates: int = Field(description="Episode-principle combinations asked for.")
    rejected: dict[Reason, int] = Field(description="Candidates not kept, by reason.")
    accepted: int = Field(description="Candidates that passed every filter.")
    surplus: int = Field(description="Accepted, but beyond the balanced number.")
    pairs: int = Field(description="Pairs in the set.")
    per_principle: dict[str, int] = Field(description="Pairs by principle.")
    calls: int = Field(description="Completions in the episodes.")
    tokens: int = Field(description="Tokens generated in them.")
    shortfall: int = Field(description="Pairs asked for and not reached; 0 when all were made.")

    def steps(self) -> list[tuple[str, int]]:
        """Return the way from candidates to pairs, one (what, how many) a row."""
        lost = [(REASONS[reason], count) for reason, count in self.rejected.items()]
        return [
            ("Candidates", self.candidates),
            *lost,
            ("Passed every filter", self.accepted),
            ("Beyond the balanced number", self.surplus),
            ("Pairs", self.pairs),
        ]


class PairSet(Config):
    """What generation made."""

    pairs: tuple[PreferencePair, ...] = Field(description="Balanced, in a deterministic order.")
    rejected: tuple[Rejected, ...] = Field(description="Candidates not kept.")
    funnel: Funnel = Field(description="The counts.")


class _Collector:
    """Keeps pairs by principle up to a quota, and counts everything else."""

    def __init__(
        self, constitution: Constitution, quality: QualityConfig, model: str, max_pairs: int
    ) -> None:
        self._constitution, self._model, self._max_pairs = constitution, model, max_pairs
        self._filter = PairFilter(quality)
        self.quota = math.ceil(max_pairs / len(constitution.principles))
        self.kept: dict[str, list[PreferencePair]] = {p: [] for p in constitution.ids}
        self.rejected: list[Rejected] = []
        self.episodes = self.candidates = self.accepted = self.calls = self.tokens = 0
        self.failed: Counter[Reason] = Counter()

    def missing(self) -> dict[str, int]:
        """Return how many pairs each principle still lacks."""
        return {p: self.quota - len(pairs) for p, pairs in self.kept.items()}

    def add(self, episode: Episode, asked: Sequence[Principle]) -> None:
        """Judge every candidate of an episode."""
        self.episodes += 1
        self.calls += episode.calls
        self.tokens += episode.tokens
        self.candidates += len(asked)
        if not episode.response.usable:
            self.failed[_unusable("response", episode.response)] += len(asked)
        for step in episode.steps:
            self._judge(episode, step)

    def _judge(self, episode: Episode, step: Step) -> None:
        if step.revision is None:
            self.failed[_unusable("critique", step.critique)] += 1
            return
        if not step.revision.usable:
            self.failed[_unusable("revision", step.revision)] += 1
            return
        texts = (episode.prompt.text, episode.response.text, step.critique.text, step.revision.text)
        if reason := self._filter.reason(*texts):
            self._reject(episode, step, reason)
            return
        self.accepted += 1
        if len(self.kept[step.principle]) < self.quota:
            self.kept[step.principle].append(self._pair(episode, step))

    def _reject(self, episode: Episode, step: Step, reason: Reason) -> None:
        self.failed[reason] += 1
        self.rejected.append(
            Rejected(
                prompt_id=episode.prompt.id,
                principle=step.principle,
                reason=reason,
                rejected=episode.response.text,
                critique=step.critique.text,
                chosen=step.revision.text if step.revision else "",
            )
        )

    def _pair(self, episode: Episode, step: Step) -> PreferencePair:
        revision = step.revision.text if step.revision else ""
        return PreferencePair(
            prompt=episode.prompt.turns,
            chosen=(assistant(revision),),
            rejected=(assistant(episode.response.text),),
            principle=step.principle,
            prompt_id=episode.prompt.id,
            source=episode.prompt.source,
            critique=step.critique.text,
            provenance={
                "model": self._model,
                "constitution": self._constitution.fingerprint,
                "sample": str(episode.sample),
                "response_call": episode.key,
                "critique_call": step.critique_key,
                "revision_call": step.revision_key,
            },
        )

    def result(self) -> PairSet:
        """Balance to the scarcest principle and count."""
        most = min(len(pairs) for pairs in self.kept.values())
        balanced = {p: pairs[:most] for p, pairs in self.kept.items()}
        in_turn = [pair for row in zip(*balanced.values(), strict=True) for pair in row]
        pairs = in_turn[: self._max_pairs]
        counts = Counter(pair.principle for pair in pairs)
        funnel = Funnel(
            episodes=self.episodes,
            candidates=self.candidates,
            rejected=dict(self.failed.most_common()),
            accepted=self.accepted,
            surplus=self.accepted - len(pairs),
            pairs=len(pairs),
            per_principle={p: counts[p] for p in self.kept},
            calls=self.calls,
            tokens=self.tokens,
            shortfall=self._max_pairs - len(pairs),
        )
        return PairSet(pairs=tuple(pairs), rejected=tuple(self.rejected), funnel=funnel)


Report = Callable[[int, int, int], None]
"""Called with (pairs kept so far, pairs wanted, calls finished)."""


async def make_pairs(
    engine: Generate,
    prompts: Sequence[Prompt],
    constitution: Constitution,
    config: PreferenceConfig,
    max_pairs: int,
    on_progress: Report | None = None,
) -> PairSet:
    """Run episodes until every principle has its share of `max_pairs` or the passes are used up.

    Raises:
        ConfigError: `max_pairs` is less than 1.
        DataError: no prompts, a prompt of the test side, or not one pair came out.
    """
    _check(prompts, max_pairs)
    collector = _Collector(constitution, config.quality, engine.model, max_pairs)
    # Fed as episodes finish, for the display: the other one takes them in order, which at times
    # means waiting long for one of them.
    shown = _Collector(constitution, config.quality, engine.model, max_pairs)
    queue = _passes(prompts, config)
    shots = constitution.shots(config.generation.few_shot)
    while missing := {p: n for p, n in collector.missing().items() if n > 0}:
        asked = [constitution.principle(p) for p in missing]
        work = [w for w, _ in zip(queue, range(_round_size(collector, missing)), strict=False)]
        if not work:
            break

        def count(episode: Episode, asked: Sequence[Principle] = asked) -> None:
            shown.add(episode, asked)
            if on_progress:
                on_progress(sum(map(len, shown.kept.values())), max_pairs, shown.calls)

        episodes = run_episodes(
            engine, work, asked, config.generation, shots=shots, on_episode=count
        )
        async with aclosing(episodes):
            async for episode in episodes:
                collector.add(episode, asked)
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


def _check(prompts: Sequence[Prompt], max_pairs: int) -> None:
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


def _passes(prompts: Sequence[Prompt], config: PreferenceConfig) -> Iterator[tuple[Prompt, int]]:
    for sample in range(config.max_passes):
        order = sorted(prompts, key=lambda p: content_hash([config.seed, sample, p.id, p.text]))
        for prompt in order:
            yield prompt, config.seed * config.max_passes + sample


def _round_size(collector: _Collector, missing: dict[str, int]) -> int:
    tried = collector.episodes
    rates = [
        len(collector.kept[p]) / tried if tried else _FIRST_YIELD  # pairs an episode
        for p in missing
    ]
    needed = max(n / max(rate, 0.05) for n, rate in zip(missing.values(), rates, strict=True))
    return max(_SMALLEST_ROUND, math.ceil(_MARGIN * needed))


_Stage = Literal["response", "critique", "revision"]
_TRUNCATED: Mapping[_Stage, Reason] = {
    "response": "response_truncated",
    "critique": "critique_truncated",
    "revision": "revision_truncated",
}
_FAILED: Mapping[_Stage, Reason] = {
    "response": "response_failed",
    "critique": "critique_failed",
    "revision": "revision_failed",
}


def _unusable(stage: _Stage, completion: Completion) -> Reason:
    return (_TRUNCATED if completion.finish_reason == "length" else _FAILED)[stage]


def write_pairs(pairs: Sequence[Config], path: Path) -> None:
    """Write one JSON object a line, whole or not at all."""
    lines = (json.dumps(pair.model_dump(), ensure_ascii=False) + "\n" for pair in pairs)
    write_whole(path, lines)
