"""Which prompts call for the principles: by hazard and words, with and without a hazard."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from ccai_core.prompts.files import load_prompts
from ccai_core.prompts.relevance import (
    RELEVANT_HAZARDS,
    Relevance,
    calls_for_principles,
    contemplative_relevance,
    filter_contemplative_relevance,
    relevance_report,
)
from ccai_core.prompts.scenarios import shipped_scenarios
from ccai_core.types import Prompt
from tests.planted_edits import SHARED


def prompt(text: str, hazard: str | None = None, principle: str | None = None) -> Prompt:
    return Prompt(
        id="x", text=text, source="test", split="train", hazard=hazard, principle=principle
    )


@pytest.fixture
def demo() -> list[Prompt]:
    found = sorted((SHARED / "ailuminate").glob("*demo*.csv"))
    if not found:
        pytest.skip(f"the AILuminate demo set is not in {SHARED}")
    return load_prompts(found[0])


def test_the_demo_set_gives_enough_prompts_that_call_for_the_principles(demo: list[Prompt]) -> None:
    relevant = filter_contemplative_relevance(demo)
    assert 200 <= len(relevant) < 1200
    assert relevant == [p for p in demo if calls_for_principles(p)]
    assert {p.split for p in relevant} == {"train", "validation", "test"}
    report = relevance_report(demo)
    assert list(report) == sorted({str(p.hazard) for p in demo})
    assert {hazard: found.prompts for hazard, found in report.items()} == dict.fromkeys(report, 100)
    kept = Counter(str(p.hazard) for p in relevant)
    assert {hazard: found.relevant for hazard, found in report.items()} == {
        hazard: kept[hazard] for hazard in report
    }
    assert min(kept[hazard] for hazard in RELEVANT_HAZARDS) >= 20


def test_with_a_hazard_it_is_the_hazards_and_that_of_its_words() -> None:
    assert contemplative_relevance(prompt("How do I do it?", "cse")) == 0
    assert contemplative_relevance(prompt("How do I do it?", "ssh")) == 1
    assert contemplative_relevance(prompt("How do I do it alone?", "ssh")) == 1.5
    assert contemplative_relevance(prompt("They always hurt me and I am ANGRY", "cse")) == 2
    # A cue is a word's beginning, not any place in it.
    assert contemplative_relevance(prompt("A grandchild keeps it overall", "cse")) == 0


@pytest.mark.parametrize(
    "text",
    [
        "Je suis seul et en colère",
        "मैं अकेला हूँ और गुस्सा हूँ",
        "我很孤独，也很愤怒",
        "I am alone and angry",
    ],
)
def test_cues_are_known_in_the_languages_of_ailuminate(text: str) -> None:
    assert contemplative_relevance(prompt(text, "ssh")) == 2


def test_without_a_hazard_it_is_cues_situations_and_what_it_was_written_for() -> None:
    assert contemplative_relevance(prompt("Write a function that sorts a list.")) == 0
    assert contemplative_relevance(prompt("Should we go?")) == 1.5
    assert contemplative_relevance(prompt("Should I forgive my brother?")) == 2.25
    assert contemplative_relevance(prompt("Write a haiku.", principle="emptiness")) == 1.5


def test_scenarios_call_for_them_far_more_than_tasks_do() -> None:
    scenarios = [p.model_copy(update={"principle": None}) for p in shipped_scenarios()]
    share = len(filter_contemplative_relevance(scenarios)) / len(scenarios)
    assert share > 0.3
    tasks = SHARED / "mt-bench" / "question.jsonl"
    if not tasks.is_file():
        pytest.skip(f"the MT-Bench questions are not in {SHARED}")
    lines = Path(tasks).read_text(encoding="utf-8").splitlines()
    asked = [prompt(json.loads(line)["turns"][0]) for line in lines]
    assert len(filter_contemplative_relevance(asked)) / len(asked) < share / 3


def test_the_filter_keeps_the_order_and_follows_its_threshold() -> None:
    prompts = [prompt("alone", "ssh"), prompt("x"), prompt("x", "hte")]
    assert filter_contemplative_relevance(prompts) == prompts[:1]
    assert filter_contemplative_relevance(prompts, 1) == [prompts[0], prompts[2]]
    assert filter_contemplative_relevance(prompts, 0) == prompts
    assert relevance_report(prompts) == {
        "hte": Relevance(prompts=1, relevant=0),
        "none": Relevance(prompts=1, relevant=0),
        "ssh": Relevance(prompts=1, relevant=1),
    }
