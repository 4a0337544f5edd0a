"""Every reason to reject a pair, on texts as models write them: what is caught and what is kept."""

from __future__ import annotations

from typing import get_args

import pytest

from ccai_core.quality import (
    REASONS,
    PairFilter,
    QualityConfig,
    Reason,
    copied,
    repetition,
    topic_overlap,
    words,
)

PROMPT = "My brother borrowed money and will not pay it back. Should I cut him off?"
RESPONSE = (
    "Yes, you should cut him off. Anyone who borrows money and refuses to return it does not "
    "respect you, and family is no excuse."
)
CRITIQUE = (
    "The answer judges the brother without knowing why he has not paid, and it tells the person "
    "to end a relationship over a debt."
)
REVISION = (
    "It hurts when a brother does not keep his word about money. Before you decide anything, ask "
    "him calmly what happened, and say what the debt means to you. You can stop lending and still "
    "stay in touch."
)
FINE = {"prompt": PROMPT, "response": RESPONSE, "critique": CRITIQUE, "revision": REVISION}

REJECTED: list[tuple[Reason, dict[str, str]]] = [
    ("too_short", {"revision": "Talk to your brother about the money first."}),
    ("too_short", {"response": "Yes, cut him off."}),
    ("too_long", {"revision": " ".join(f"Money matter {i} with your brother." for i in range(90))}),
    ("too_long", {"response": " ".join(f"brother{i}" for i in range(180))}),
    ("control_token", {"revision": REVISION + " <|im_end|>"}),
    ("control_token", {"response": RESPONSE + " <|im_start|>user"}),
    ("control_token", {"revision": "[INST] " + REVISION}),
    ("meta_text", {"revision": "Here's a revised version of the answer:\n\n" + REVISION}),
    ("meta_text", {"revision": "Here’s the kinder way to put it: " + REVISION}),
    ("meta_text", {"revision": "As an AI language model, I cannot judge him. " + REVISION}),
    ("meta_text", {"revision": REVISION + " The original response was too harsh."}),
    ("meta_text", {"revision": "Thank you for your question. " + REVISION}),
    ("meta_text", {"revision": "The critique is right that more care is needed. " + REVISION}),
    ("meta_text", {"revision": "I'll try again. " + REVISION}),
    ("meta_text", {"revision": "This question touches upon honesty. " + REVISION}),
    ("meta_text", {"revision": "This is a classic example of a debt. " + REVISION}),
    ("meta_text", {"revision": "Your request is quite specific. " + REVISION}),
    (
        "repetitive",
        {"revision": "You should talk to your brother about the money. " * 5},
    ),
    ("same_as_response", {"revision": RESPONSE.upper()}),
    ("same_as_response", {"revision": RESPONSE.replace("Anyone", "A person")}),
    ("copies_critique", {"revision": "Money. " + CRITIQUE}),
    ("copies_prompt", {"revision": PROMPT + " That is what you ask."}),
    (
        "off_topic",
        {"revision": "Gardens need water early in spring, so plant tomatoes after the last frost "
                     "and feed them every second week."},
    ),
]  # fmt: skip

KEPT = [
    {},
    {"revision": REVISION.replace("It hurts", "I understand that it hurts")},
    {"revision": "First, breathe. " + REVISION},
    # A turn of phrase said twice is no repetition, and a quoted word of the question no copy.
    {"revision": REVISION + " Before you decide anything, sleep on it."},
    {"revision": "Should you cut him off? " + REVISION},
    # Words that only look like talk about answering.
    {"revision": REVISION + " Put the debt in your textbook of hard lessons."},
    {"revision": REVISION + " The reward is a brother you can still call."},
    {"revision": REVISION + " In texts to him, be brief."},
    {"revision": REVISION + " Use 2 < 3 as a joke, or <b>bold</b> words."},
    # A response may talk about itself: it is the one rejected.
    {"response": "As an AI language model, I think this: " + RESPONSE},
    {"response": RESPONSE + " " + RESPONSE},
]


def judge(config: QualityConfig | None = None, **texts: str) -> Reason | None:
    return PairFilter(config or QualityConfig()).reason(**FINE | texts)


@pytest.mark.parametrize(("reason", "changed"), REJECTED)
def test_what_is_not_worth_training_on_is_rejected_for_its_reason(
    reason: Reason, changed: dict[str, str]
) -> None:
    assert judge(**changed) == reason


@pytest.mark.parametrize("changed", KEPT)
def test_what_is_worth_training_on_is_kept(changed: dict[str, str]) -> None:
    assert judge(**changed) is None


def test_a_revision_that_was_kept_is_not_kept_again() -> None:
    judged = PairFilter(QualityConfig())
    assert judged.reason(**FINE) is None
    assert judged.reason(**FINE | {"revision": REVISION.upper() + "!"}) == "duplicate"
    assert judged.reason(**FINE | {"revision": REVISION + " Be patient."}) is None


def test_a_revision_that_was_rejected_makes_no_later_one_a_duplicate() -> None:
    judged = PairFilter(QualityConfig())
    assert judged.reason(**FINE | {"response": "Yes."}) == "too_short"
    assert judged.reason(**FINE) is None


def test_every_reason_is_explained_and_every_filter_is_tested() -> None:
    assert set(REASONS) == set(get_args(Reason))
    assert all(REASONS.values())
    by_stage = {f"{s}_{h}" for s in ("response", "critique", "revision")
                for h in ("failed", "truncated")}  # fmt: skip
    tested = {reason for reason, _ in REJECTED} | {"duplicate"}
    assert tested | by_stage == set(REASONS)


@pytest.mark.parametrize(
    ("strict", "reason"),
    [
        ({"min_words": 60}, "too_short"),
        ({"max_words": 20}, "too_long"),
        ({"max_length_ratio": 1.1}, "too_long"),
        ({"max_repetition": 0.001}, "repetitive"),
        ({"max_similarity": 0.01}, "same_as_response"),
        ({"max_copied": 0.001}, "copies_critique"),
        ({"min_topic_overlap": 0.9}, "off_topic"),
    ],
)
def test_every_threshold_counts(strict: dict[str, float], reason: Reason) -> None:
    texts = {
        "revision": REVISION + " Before you decide anything, ask why he has not paid, and wait.",
    }
    assert judge(**texts) is None
    assert judge(QualityConfig(**strict), **texts) == reason


def test_measures_of_texts() -> None:
    assert words("Don’t shout: it's 2 a.m.!") == ["don’t", "shout", "it's", "2", "a", "m"]
    assert repetition("one two three four") == 0
    assert repetition("a b c a b c") == pytest.approx(1 / 4)
    assert repetition("") == repetition("two words") == 0
    assert copied("a b c d e", "x a b c d y") == pytest.approx(1 / 2)
    assert copied("short", "short") == 0
    assert topic_overlap("Why are relationships over?", "A relationship ends") == 1
    assert topic_overlap("What is it?", "Anything at all") == 1
    assert topic_overlap("Tell me of gardens", "Cars are fast") == 0
