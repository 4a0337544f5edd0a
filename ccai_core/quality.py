"""Which pairs are worth training on: every rejection has a reason.

reason = PairFilter(QualityConfig()).reason(prompt, response, critique, revision)   # None: keep
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Literal

from pydantic import Field

from ccai_core.config import Config
from ccai_core.control_tokens import find_control_token

Reason = Literal[
    "response_failed",
    "response_truncated",
    "critique_failed",
    "critique_truncated",
    "revision_failed",
    "revision_truncated",
    "too_short",
    "too_long",
    "repetitive",
    "same_as_response",
    "copies_critique",
    "copies_prompt",
    "meta_text",
    "off_topic",
    "control_token",
    "duplicate",
]
REASONS: Mapping[Reason, str] = {
    "response_failed": "The model gave no response",
    "response_truncated": "The response ran into its token limit",
    "critique_failed": "The model gave no critique",
    "critique_truncated": "The critique ran into its token limit",
    "revision_failed": "The model gave no revision",
    "revision_truncated": "The revision ran into its token limit",
    "too_short": "An answer has too few words",
    "too_long": "An answer has too many words, or many times the other's",
    "repetitive": "The revision repeats itself",
    "same_as_response": "The revision is the response again",
    "copies_critique": "The revision repeats the critique",
    "copies_prompt": "The revision repeats the question",
    "meta_text": "The revision talks about answering instead of answering",
    "off_topic": "The revision shares no word with the question",
    "control_token": "An answer spells a chat control token",
    "duplicate": "The same revision was kept before",
}


class QualityConfig(Config):
    """Thresholds of the pair filters; see docs/pairs.md for what they did on real text."""

    min_words: int = Field(12, ge=1, description="Fewest words of either answer.")
    max_words: int = Field(400, ge=1, description="Most words of either answer.")
    max_length_ratio: float = Field(
        4.0, gt=1, description="Most words of one answer over the other's."
    )
    max_repetition: float = Field(
        0.3, gt=0, le=1, description="Largest share of three-word sequences said before."
    )
    max_similarity: float = Field(
        0.9, gt=0, le=1, description="Above it the revision counts as the response again."
    )
    max_copied: float = Field(
        0.6, gt=0, le=1, description="Largest share of the revision's 4-word sequences copied."
    )
    min_topic_overlap: float = Field(
        0.05, ge=0, le=1, description="Least share of the prompt's content words answered."
    )


# A revision must be the answer itself, not talk about answering (or about being asked to revise).
_META = re.compile(
    r"(?ix) \b(?:revis(?:ed|ion)|rewrit(?:e|ten)|reword|rephras|critique|"
    r"(?:first|previous|original|initial|new|updated|improved|above|your|my)\s+"
    r"(?:answer|response|question|message|text|draft)s?\b|"
    r"here(?:['’]s|\s+is|\s+are)\s+(?:the|a|an|my|your|some)\b[^.\n]{0,60}:|"
    r"as\s+an\s+ai\b|language\s+model|the\s+(?:user|prompt|assistant)\b|"
    r"(?:four|five|two|three)\s+(?:or\s+\w+\s+)?sentences|"
    r"this\s+(?:text|passage|paragraph|essay|question|scenario)\b|"
    r"\btry\s+again\b|answered\s+correctly|re-?explain|"
    r"this\s+is\s+(?:a|an|another)\s+(?:\w+\s+)?example|your\s+request\b)"
)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_STOP = frozenset(
    "a about after all also am an and any are as at be because been but by can could did do does "
    "doing don't for from get had has have he her him his how i i'm if in into is it it's its just "
    "like make me more most my no not now of on one or other our out over people she should so "
    "some than that the their them then there they this those to too up us very was way we "
    "were what "
    "when where which while who why will with would you your".split()
)


def words(text: str) -> list[str]:
    """Return a text's words, case-folded."""
    return _WORD.findall(text.casefold())


def repetition(text: str) -> float:
    """Return the share of three-word sequences that repeat an earlier one."""
    grams = _grams(words(text), 3)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def copied(text: str, source: str) -> float:
    """Return the share of `text`'s four-word sequences that stand in `source`."""
    grams, known = _grams(words(text), 4), set(_grams(words(source), 4))
    return sum(gram in known for gram in grams) / len(grams) if grams else 0.0


def topic_overlap(prompt: str, answer: str) -> float:
    """Return the share of the prompt's content words (by five-letter stem) that the answer uses."""
    asked = {w[:5] for w in words(prompt) if w not in _STOP and len(w) > 2}
    said = {w[:5] for w in words(answer)}
    return len(asked & said) / len(asked) if asked else 1.0


def _grams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


class PairFilter:
    """Judges finished texts one pair at a time; remembers what it kept to find duplicates."""

    def __init__(self, config: QualityConfig) -> None:
        self._config = config
        self._kept: set[str] = set()

    def reason(self, prompt: str, response: str, critique: str, revision: str) -> Reason | None:
        """Return why the pair is rejected, or None to keep it."""
        limits = self._config
        chosen, rejected = words(revision), words(response)
        if min(len(chosen), len(rejected)) < limits.min_words:
            return "too_short"
        longer, shorter = max(len(chosen), len(rejected)), min(len(chosen), len(rejected))
        if longer > limits.max_words or longer > limits.max_length_ratio * shorter:
            return "too_long"
        if find_control_token(revision) or find_control_token(response):
            return "control_token"
        return self._form(revision) or self._content(prompt, response, critique, revision)

    def _form(self, revision: str) -> Reason | None:
        if _META.search(revision):
            return "meta_text"
        if repetition(revision) > self._config.max_repetition:
            return "repetitive"
        return None

    def _content(self, prompt: str, response: str, critique: str, revision: str) -> Reason | None:
        limits = self._config
        if _similarity(response, revision) > limits.max_similarity:
            return "same_as_response"
        if copied(revision, critique) > limits.max_copied:
            return "copies_critique"
        if copied(revision, prompt) > limits.max_copied:
            return "copies_prompt"
        if topic_overlap(prompt, revision) < limits.min_topic_overlap:
            return "off_topic"
        key = " ".join(words(revision))
        if key in self._kept:
            return "duplicate"
        self._kept.add(key)
        return None


def _similarity(first: str, second: str) -> float:
    # Word sequences instead of characters: 5 times faster, and blind to spacing and case.
    return SequenceMatcher(None, words(first), words(second), autojunk=False).ratio()
