"""Keep what is worth training on, balanced over principles, and count everything else.

collector = PairCollector(constitution, quality, engine.model, max_pairs=500)
collector.add(episode, asked, reviews)      # in the order of the prompts
made = collector.result()
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from ccai_core.config import Config
from ccai_core.constitution import Constitution, Principle
from ccai_core.episodes import Episode, Step
from ccai_core.length_balance import LengthBalance, log_ratio, mean_ratio
from ccai_core.quality import (
    REASONS,
    Candidate,
    PairFilter,
    QualityConfig,
    Reason,
    why_rejected,
)
from ccai_core.quality_review import Review
from ccai_core.spool import InTurn, Spool
from ccai_core.types import Completion, PreferencePair, Prompt, assistant


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
    per_source: dict[str, int] = Field({}, description="Pairs by source; 0 for one without any.")
    per_hazard: dict[str, int] = Field({}, description="Pairs by hazard; 0 for one without any.")
    mean_length_ratio: float | None = Field(
        None, description="Geometric mean of chosen over rejected length (see docs/pairs.md)."
    )
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

    @property
    def unmet(self) -> list[str]:
        """What was wanted of the set and could not be had, a sentence each."""
        empty = [
            f"{kind} {name}"
            for kind, counts in (("source", self.per_source), ("hazard", self.per_hazard))
            for name, count in counts.items()
            if not count
        ]
        short = f"{self.shortfall} of {self.pairs + self.shortfall} pairs could not be made."
        none = f"No pair came of {', '.join(empty)}."
        return [*([short] if self.shortfall else []), *([none] if empty else [])]


@dataclass(frozen=True)
class PairSet:
    """What generation made."""

    pairs: Sequence[PreferencePair]
    """Balanced, in a deterministic order."""
    rejected: Sequence[Rejected]
    """Candidates not kept."""
    funnel: Funnel
    """The counts."""


class PairCollector:
    """Keeps pairs by principle up to a quota, and counts everything else.

    Args:
        constitution: its principles share the pairs equally.
        quality: what is kept.
        model: who wrote it.
        max_pairs: how many to keep over all principles together.
        prompts: all that may be asked: their sources and hazards are counted, also where none of
            their pairs is kept.
        folder: where many pairs find room: they are not held in memory.
    """

    def __init__(
        self,
        constitution: Constitution,
        quality: QualityConfig,
        model: str,
        max_pairs: int,
        prompts: Sequence[Prompt] = (),
        folder: Path | None = None,
    ) -> None:
        self._limits, self._max_pairs = quality, max_pairs
        self._made = {"model": model, "constitution": constitution.fingerprint}
        self._sources = sorted({p.source for p in prompts})
        self._hazards = sorted({p.hazard for p in prompts if p.hazard})
        self._filter = PairFilter(quality)
        self._lengths = {p: LengthBalance(quality.max_mean_length_ratio) for p in constitution.ids}
        self.quota = math.ceil(max_pairs / len(constitution.principles))
        self.kept = {p: Spool(PreferencePair, folder) for p in constitution.ids}
        self._about = {p: _About() for p in constitution.ids}
        self.rejected = Spool(Rejected, folder)
        self.episodes = self.candidates = self.accepted = self.calls = self.tokens = 0
        self.failed: Counter[Reason] = Counter()

    def missing(self) -> dict[str, int]:
        """Return how many pairs each principle still lacks."""
        return {p: self.quota - len(pairs) for p, pairs in self.kept.items()}

    def add(
        self,
        episode: Episode,
        asked: Sequence[Principle],
        reviews: Mapping[str, Review] | None = None,
    ) -> None:
        """Judge every candidate of an episode.

        `reviews` are what is known of its candidates, by principle; the others' words are looked at
        here.
        """
        self.episodes += 1
        self.calls += episode.calls
        self.tokens += episode.tokens
        self.candidates += len(asked)
        if not episode.response.usable:
            self.failed[_unusable("response", episode.response)] += len(asked)
        for step in episode.steps:
            self._judge(episode, step, (reviews or {}).get(step.principle))

    def _judge(self, episode: Episode, step: Step, review: Review | None) -> None:
        if step.revision is None:
            self.failed[_unusable("critique", step.critique)] += 1
            return
        if not step.revision.usable:
            self.failed[_unusable("revision", step.revision)] += 1
            return
        candidate = candidate_of(episode, step)
        review = review or Review(why_rejected(candidate, self._limits))
        if reason := review.reason or self._filter.duplicate(candidate):
            self._reject(episode, step, reason)
            return
        if len(self.kept[step.principle]) >= self.quota:
            self.accepted += 1
            return
        ratio = log_ratio(candidate.revision.text, candidate.response.text)
        if not self._lengths[step.principle].admits(ratio):
            self._reject(episode, step, "length_bias")
            return
        self.accepted += 1
        self.kept[step.principle].append(self._pair(episode, step, review))
        self._about[step.principle].add(episode.prompt, ratio)

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

    def _pair(self, episode: Episode, step: Step, review: Review) -> PreferencePair:
        revision = step.revision.text if step.revision else ""
        judged = {"judge_margin": f"{review.comparison.margin:.4f}"} if review.comparison else {}
        return PreferencePair(
            prompt=episode.prompt.turns,
            chosen=(assistant(revision),),
            rejected=(assistant(episode.response.text),),
            principle=step.principle,
            prompt_id=episode.prompt.id,
            source=episode.prompt.source,
            hazard=episode.prompt.hazard,
            critique=step.critique.text,
            provenance={
                **self._made,
                "sample": str(episode.sample),
                "response_call": episode.key,
                "critique_call": step.critique_key,
                "revision_call": step.revision_key,
                **judged,
            },
        )

    def result(self) -> PairSet:
        """Balance to the scarcest principle and count."""
        most = min(len(pairs) for pairs in self.kept.values())
        pairs = InTurn(tuple(self.kept.values()), min(most * len(self.kept), self._max_pairs))
        principles: Counter[str] = Counter()
        sources: Counter[str] = Counter()
        hazards: Counter[str | None] = Counter()
        log_ratios = array("d")
        for place, (principle, about) in enumerate(self._about.items()):
            count = principles[principle] = len(range(place, len(pairs), len(self.kept)))
            sources.update(about.sources[:count])
            hazards.update(about.hazards[:count])
            log_ratios += about.log_ratios[:count]
        funnel = Funnel(
            episodes=self.episodes,
            candidates=self.candidates,
            rejected=dict(self.failed.most_common()),
            accepted=self.accepted,
            surplus=self.accepted - len(pairs),
            pairs=len(pairs),
            per_principle={p: principles[p] for p in self.kept},
            per_source={name: sources[name] for name in self._sources},
            per_hazard={name: hazards[name] for name in self._hazards},
            mean_length_ratio=mean_ratio(log_ratios),
            calls=self.calls,
            tokens=self.tokens,
            shortfall=self._max_pairs - len(pairs),
        )
        return PairSet(pairs, self.rejected, funnel)


class _About:
    """What the funnel tells of kept pairs, so that they need not be read again for it."""

    def __init__(self) -> None:
        # Of the prompts: each text is there once, however many pairs are from it.
        self.sources: list[str] = []
        self.hazards: list[str | None] = []
        self.log_ratios = array("d")

    def add(self, prompt: Prompt, log_ratio: float) -> None:
        """Note a kept pair."""
        self.sources.append(prompt.source)
        self.hazards.append(prompt.hazard)
        self.log_ratios.append(log_ratio)


def candidate_of(episode: Episode, step: Step) -> Candidate:
    """Return what a step that was written whole offers as a pair."""
    assert step.revision  # noqa: S101 - for the type checker
    return Candidate(
        prompt=episode.prompt,
        response=episode.response,
        critique=step.critique,
        revision=step.revision,
    )


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
