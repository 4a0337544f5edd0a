"""Which pairs are worth training on: every rejection has a reason.

Looks at words alone; what a model thinks of a candidate is the business of quality_review.

    reason = PairFilter(QualityConfig()).reason(candidate)      # None: keep
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Literal

from pydantic import Field

from ccai_core.config import Config
from ccai_core.control_tokens import find_control_token
from ccai_core.prompts.language import language_named, language_of
from ccai_core.quality_measures import copied, is_similar, repetition, topic_overlap, words
from ccai_core.quality_meta import talks_about_answering
from ccai_core.quality_refusals import declines
from ccai_core.types import Completion, Prompt

Reason = Literal[
    "response_failed",
    "response_truncated",
    "critique_failed",
    "critique_truncated",
    "revision_failed",
    "revision_truncated",
    "too_short",
    "too_long",
    "control_token",
    "other_language",
    "meta_text",
    "repetitive",
    "same_as_response",
    "copies_critique",
    "copies_prompt",
    "declines_harmless",
    "helps_with_harm",
    "off_topic",
    "toxic",
    "judged_worse",
    "judge_undecided",
    "duplicate",
    "length_bias",
]
REASONS: Mapping[Reason, str] = {
    "response_failed": "The model gave no response",
    "response_truncated": "The response ran into its token limit",
    "critique_failed": "The model gave no critique",
    "critique_truncated": "The critique ran into its token limit",
    "revision_failed": "The model gave no revision",
    "revision_truncated": "The revision ran into its token limit",
    "too_short": "An answer has too few words or tokens",
    "too_long": "An answer has too many words or tokens, or many times the other's",
    "control_token": "An answer spells a chat control token",
    "other_language": "An answer is in another language than the question",
    "meta_text": "The revision talks about answering instead of answering",
    "repetitive": "The revision repeats itself",
    "same_as_response": "The revision is the response again, or a piece of it",
    "copies_critique": "The revision repeats the critique",
    "copies_prompt": "The revision repeats the question",
    "declines_harmless": "The revision declines a harmless question that the response answers",
    "helps_with_harm": "The revision answers a harmful request that the response declines",
    "off_topic": "The revision shares no word with the question",
    "toxic": "The classifier finds the revision toxic",
    "judged_worse": "The judge finds the response better, in both orders",
    "judge_undecided": "The judge does not find the revision better in both orders",
    "duplicate": "The same revision passed the filters before",
    "length_bias": "It would make chosen answers longer, or shorter, than rejected ones on average",
}


class QualityConfig(Config):
    """Thresholds of the pair filters; see docs/pairs.md for what they did on real text."""

    min_words: int = Field(12, ge=1, description="Fewest words of either answer.")
    max_words: int = Field(400, ge=1, description="Most words of either answer.")
    min_tokens: int = Field(
        16, ge=1, description="Fewest tokens of either answer, where the engine counts them."
    )
    max_tokens: int = Field(
        768, ge=1, description="Most tokens of either answer, where the engine counts them."
    )
    max_length_ratio: float = Field(
        4.0, gt=1, description="Most words of one answer over the other's."
    )
    max_repetition: float = Field(
        0.3, gt=0, le=1, description="Largest share of three-word sequences said before."
    )
    max_similarity: float = Field(
        0.9, gt=0, le=1, description="Above it the revision counts as the response again."
    )
    max_excerpt: float = Field(
        0.8, gt=0, le=1, description="Largest share of 4-word sequences copied from the response."
    )
    max_copied: float = Field(
        0.6, gt=0, le=1, description="Largest share of the revision's 4-word sequences copied."
    )
    min_topic_overlap: float = Field(
        0.05, ge=0, le=1, description="Least share of the prompt's content words answered."
    )
    same_language: bool = Field(
        True, description="Whether both answers must be in the prompt's language."
    )
    refusal_flips: bool = Field(
        True, description="Whether to reject pairs that differ in declining, the wrong way round."
    )
    max_mean_length_ratio: float | None = Field(
        1.5,
        gt=1,
        description="Most that chosen answers are longer, or shorter, on average; null: any.",
    )
    toxicity_model: str | None = Field(
        None, description="Text classifier for revisions: a folder or a hub id; null: none."
    )
    toxic_labels: tuple[str, ...] = Field(
        (), description="Its labels that mean harm; empty: those whose names say so."
    )
    max_toxicity: float = Field(
        0.5, ge=0, le=1, description="Largest probability of a toxic label."
    )
    judge: Literal["none", "self"] = Field(
        "none", description="Who compares the answers: nobody, or the model that wrote them."
    )
    judge_margin: float = Field(
        0.0, ge=0, description="Log-odds by which the revision must win in both orders."
    )


class Candidate(Config):
    """A response and its revision, written whole: what may become a pair."""

    prompt: Prompt = Field(description="What was asked.")
    response: Completion = Field(description="The model's own answer; would be rejected.")
    critique: Completion = Field(description="What is wrong with it.")
    revision: Completion = Field(description="The better answer; would be chosen.")

    @property
    def harmful(self) -> bool:
        """Whether the prompt asks for something that is best declined."""
        return self.prompt.hazard is not None or self.prompt.category == "hazard"


class PairFilter:
    """Judges finished texts one pair at a time; remembers what it kept to find duplicates."""

    def __init__(self, config: QualityConfig) -> None:
        self._config = config
        self._kept: set[bytes] = set()

    def reason(self, candidate: Candidate, reviewed: Reason | None = None) -> Reason | None:
        """Return why the pair is rejected, or None to keep it.

        Args:
            candidate: what was written.
            reviewed: why a model would reject it; asked for only where the words are in order.
        """
        found = why_rejected(candidate, self._config) or reviewed
        return found or self.duplicate(candidate)

    def duplicate(self, candidate: Candidate) -> Reason | None:
        """Return that the revision was kept before; if not, it is from now on."""
        # A hash: millions of texts would fill the memory.
        said = " ".join(words(candidate.revision.text)).encode()
        key = blake2b(said, digest_size=16).digest()
        if key in self._kept:
            return "duplicate"
        self._kept.add(key)
        return None


def why_rejected(candidate: Candidate, limits: QualityConfig) -> Reason | None:
    """Return why a candidate's words are not worth training on, or None if they are."""
    return (
        _length(candidate, limits)
        or _form(candidate, limits)
        or _copies(candidate, limits)
        or _content(candidate, limits)
    )


def _length(candidate: Candidate, limits: QualityConfig) -> Reason | None:
    answers = candidate.response, candidate.revision
    shorter, longer = sorted(len(words(answer.text)) for answer in answers)
    # 0 tokens: the engine did not count them.
    tokens = sorted(answer.completion_tokens for answer in answers if answer.completion_tokens)
    if shorter < limits.min_words or (tokens and tokens[0] < limits.min_tokens):
        return "too_short"
    if longer > limits.max_words or (tokens and tokens[-1] > limits.max_tokens):
        return "too_long"
    return "too_long" if longer > limits.max_length_ratio * shorter else None


def _form(candidate: Candidate, limits: QualityConfig) -> Reason | None:
    response, revision = candidate.response.text, candidate.revision.text
    if find_control_token(revision) or find_control_token(response):
        return "control_token"
    if limits.same_language and _changes_language(candidate):
        return "other_language"
    if talks_about_answering(revision):
        return "meta_text"
    return "repetitive" if repetition(revision) > limits.max_repetition else None


def _changes_language(candidate: Candidate) -> bool:
    asked = language_named(candidate.prompt) or _language_asked(candidate.prompt.text)
    answers = candidate.response.text, candidate.revision.text
    # None: too short to tell.
    return asked is not None and any(_language(answer) not in (asked, None) for answer in answers)


# A response comes with every principle, and a prompt with every pass.
_language = lru_cache(maxsize=1024)(language_of)
_language_asked = lru_cache(maxsize=16_384)(language_of)


def _copies(candidate: Candidate, limits: QualityConfig) -> Reason | None:
    response, revision = candidate.response.text, candidate.revision.text
    if is_similar(response, revision, above=limits.max_similarity):
        return "same_as_response"
    if copied(revision, response) > limits.max_excerpt:
        return "same_as_response"
    if copied(revision, candidate.critique.text) > limits.max_copied:
        return "copies_critique"
    return "copies_prompt" if copied(revision, candidate.prompt.text) > limits.max_copied else None


def _content(candidate: Candidate, limits: QualityConfig) -> Reason | None:
    revision = candidate.revision.text
    was_declined, is_declined = declines(candidate.response.text), declines(revision)
    if limits.refusal_flips and was_declined != is_declined:
        if is_declined and not candidate.harmful:
            return "declines_harmless"
        if was_declined and candidate.harmful:
            return "helps_with_harm"
    if is_declined and candidate.harmful:
        # Declining takes no words of the question.
        return None
    unrelated = topic_overlap(candidate.prompt.text, revision) < limits.min_topic_overlap
    return "off_topic" if unrelated else None
