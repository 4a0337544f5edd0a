"""Categories: what a prompt says of itself wins, then hazard, source and, last, its words."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ccai_core.prompts.categories import (
    CATEGORIES,
    category_of,
    category_of_words,
    cue_points,
    with_categories,
)
from ccai_core.prompts.scenarios import shipped_scenarios
from ccai_core.types import Category, Prompt

SHARED = Path(__file__).parents[3] / "shared" / "data"


def prompt(text: str = "How do I sharpen a knife?", **fields: Any) -> Prompt:
    return Prompt(**{"id": "x", "text": text, "source": "mine", "split": "train"} | fields)


@pytest.mark.parametrize(
    ("fields", "category"),
    [
        ({"category": "philosophical", "hazard": "vcr"}, "philosophical"),
        ({"hazard": "vcr"}, "hazard"),
        ({"source": "ailuminate-practice"}, "hazard"),
        ({"source": "hh-rlhf/harmless-base"}, "hazard"),
        ({"source": "hh-rlhf/red-team-attempts"}, "hazard"),
        ({"source": "hh-rlhf/helpful-online", "text": "Is it wrong to lie?"}, "practical_advice"),
        ({"source": "forum", "text": "Is it wrong to lie?"}, "ethical_dilemma"),
        ({}, "practical_advice"),
    ],
)
def test_the_strongest_word_wins(fields: dict[str, Any], category: Category) -> None:
    assert category_of(prompt(**fields)) == category


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("Is it right to read my son's diary if I worry about him?", "ethical_dilemma"),
        ("My sister made me promise. Should I tell her husband?", "ethical_dilemma"),
        ("Who am I when nobody is looking?", "philosophical"),
        ("Do we have free will, or does it only feel so?", "philosophical"),
        ("What is the meaning of life?", "philosophical"),
        ("How can I keep tomatoes from splitting?", "practical_advice"),
        ("Write a letter to my landlord about the heating.", "practical_advice"),
        ("Which train should I take?", "practical_advice"),
        ("Hello there", "practical_advice"),
        ("", "practical_advice"),
    ],
)
def test_words_tell_what_is_asked(text: str, category: Category) -> None:
    assert category_of_words(text) == category


def test_what_is_asked_last_counts_more_than_the_story() -> None:
    story = "I lied to my brother."
    assert category_of_words(f"{story} How can I learn to swim?") == "practical_advice"
    assert cue_points(story)["ethical_dilemma"] > cue_points(f"{story} Hm.")["ethical_dilemma"]


def test_a_category_is_given_once_and_nothing_else_changes() -> None:
    given = prompt(category="philosophical")
    bare = prompt(hazard="hte")
    done = with_categories([given, bare])
    assert done == [given, bare.model_copy(update={"category": "hazard"})]
    assert with_categories(done) == done


def test_a_very_long_text_is_no_trouble() -> None:
    assert category_of_words("a b c, " * 200_000 + "Is it wrong to lie?") == "ethical_dilemma"


def test_what_cues_call_a_dilemma_or_philosophy_mostly_is_one() -> None:
    # The scenarios are hard: written so that each could be taken for another. Chance is a third.
    said = Counter(
        (category_of_words(p.text), p.category) for p in shipped_scenarios() if p.category
    )
    for category in ("ethical_dilemma", "philosophical"):
        found = {written: n for (cues, written), n in said.items() if cues == category}
        assert found[category] / sum(found.values()) > 0.55
    assert set(CATEGORIES) - {"hazard"} == {written for _, written in said}


def test_tasks_for_an_assistant_are_no_philosophy() -> None:
    file = SHARED / "mt-bench" / "question.jsonl"
    if not file.is_file():
        pytest.skip(f"the MT-Bench questions are not in {SHARED}")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    found = Counter(category_of_words(row["turns"][0]) for row in rows)
    assert found["practical_advice"] / len(rows) > 0.9
