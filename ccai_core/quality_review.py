"""What models think of a candidate whose words are in order: a toxicity classifier and a judge.

Both are off unless configured. The judge reads the two answers side by side, twice, with their
places swapped: a judge that leans to the first answer (small ones do) finds for neither, so only a
revision that wins in both places is kept.

    reviewer = Reviewer(config.quality, judge=engine)
    review = await reviewer.review(candidate)       # review.reason is None: keep
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Sequence
from typing import NamedTuple, Protocol

from ccai_core.errors import ConfigError
from ccai_core.quality import Candidate, QualityConfig, Reason, why_rejected
from ccai_core.types import Choose, Message, user

_OPTIONS = ("A", "B")


class Classify(Protocol):
    """Anything that says how toxic texts are: a model in this process, or a service."""

    def score(self, texts: Sequence[str]) -> list[float] | Awaitable[list[float]]:
        """Return a probability from 0 (harmless) to 1 for each text; plain or awaitable."""


class Comparison(NamedTuple):
    """Log-odds (nats) that the revision is the better answer, read in both places."""

    first: float
    """With the revision as answer A."""
    second: float
    """With the revision as answer B."""

    @property
    def margin(self) -> float:
        """By how much the revision wins in the place where it does worse."""
        return min(self)

    def reason(self, margin: float) -> Reason | None:
        """Return why the judge does not let the pair pass."""
        if self.margin > margin:
            return None
        return "judged_worse" if max(self) < 0 else "judge_undecided"


class Review(NamedTuple):
    """What is known of a candidate: why to reject it, by its words or by a model, if anything."""

    reason: Reason | None = None
    comparison: Comparison | None = None


class Reviewer:
    """Asks the models that a configuration names; without any, every review is empty.

    Args:
        limits: thresholds, and which models are asked.
        judge: compares answers where `limits.judge` is not "none".
        classify: rates revisions; none: the configured toxicity model, loaded on first use.
    """

    def __init__(
        self,
        limits: QualityConfig,
        judge: Choose | None = None,
        classify: Classify | None = None,
    ) -> None:
        self._limits = limits
        self._judge = judge if limits.judge != "none" else None
        self._classify = classify or _classifier(limits)
        # One text classifier, one call at a time: it may not bear two threads.
        self._turn = asyncio.Lock()

    @property
    def asks(self) -> bool:
        """Whether there is a model to ask."""
        return self._classify is not None or self._judge is not None

    def read(self, candidate: Candidate) -> Reason | None:
        """Return why a candidate's words are reason enough to reject it."""
        return why_rejected(candidate, self._limits)

    async def review(self, candidate: Candidate) -> Review:
        """Read a candidate and, where its words are in order, ask the models about it."""
        if (reason := self.read(candidate)) or not self.asks:
            return Review(reason)
        if self._classify and await self._toxicity(candidate) > self._limits.max_toxicity:
            return Review("toxic")
        if not self._judge:
            return Review()
        comparison = await compare(
            self._judge,
            candidate.prompt.turns,
            candidate.revision.text,
            candidate.response.text,
        )
        return Review(comparison.reason(self._limits.judge_margin), comparison)

    async def _toxicity(self, candidate: Candidate) -> float:
        assert self._classify  # noqa: S101 - for the type checker
        async with self._turn:
            found = await asyncio.to_thread(self._classify.score, [candidate.revision.text])
            scores = await found if inspect.isawaitable(found) else found
        if len(scores) != 1 or not 0 <= scores[0] <= 1:
            raise ConfigError(
                f"The toxicity classifier gave {scores!r:.80} for one text; one probability from 0 "
                "to 1 was expected."
            )
        return scores[0]


def _classifier(limits: QualityConfig) -> Classify | None:
    if limits.toxicity_model is None:
        return None
    from ccai_core.quality_toxicity import ToxicityModel

    return ToxicityModel(limits.toxicity_model, limits.toxic_labels)


async def compare(
    judge: Choose, prompt: Sequence[Message], revision: str, response: str
) -> Comparison:
    """Ask which of two answers is better, with the revision in either place."""
    (a, b), (other_a, other_b) = await asyncio.gather(
        judge.choose(comparison_messages(prompt, revision, response), _OPTIONS),
        judge.choose(comparison_messages(prompt, response, revision), _OPTIONS),
    )
    return Comparison(first=a - b, second=other_b - other_a)


def comparison_messages(prompt: Sequence[Message], a: str, b: str) -> tuple[Message, ...]:
    """Lay out one comparison: what was said, both answers, and the question which is better."""
    said = "\n\n".join(
        f"{'Person' if turn.role == 'user' else 'Assistant'}: {turn.content}" for turn in prompt
    )
    return (
        user(
            f"{said}\n\nAnswer A: {a}\n\nAnswer B: {b}\n\nWhich answer serves the person better: "
            "it answers what was asked, is honest and kind, and helps with no harm? "
            "Reply with A or B."
        ),
    )
