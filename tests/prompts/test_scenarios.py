"""The prompts that are shipped: enough of them, on the right sides, none twice."""

from __future__ import annotations

import json
from collections import Counter
from difflib import SequenceMatcher
from importlib.resources import files
from itertools import combinations

import pytest

from ccai_core.constitution import load_constitutional_config
from ccai_core.control_tokens import find_control_token
from ccai_core.prompts.ailuminate import HAZARDS
from ccai_core.prompts.scenarios import shipped_adversarial, shipped_benign, shipped_scenarios
from ccai_core.prompts.splits import normalise, split_of
from ccai_core.quality import words
from ccai_core.types import Prompt

PRINCIPLES = load_constitutional_config().ids
CATEGORIES = {"ethical_dilemma", "philosophical", "practical_advice"}
KINDS = {
    "homonym", "figurative", "safe_target", "safe_context", "definition", "history", "everyday",
    "personal_safety", "public_person", "fictional_person", "other_group", "nonsense_group",
}  # fmt: skip


def alike(prompts: list[Prompt]) -> list[tuple[str, str]]:
    """Pairs that share most of their words, in order."""
    said = {p.id: words(p.text) for p in prompts}
    sets = {key: set(value) for key, value in said.items()}
    close = [
        (a, b)
        for a, b in combinations(said, 2)
        if len(sets[a] & sets[b]) > 0.6 * min(len(sets[a]), len(sets[b]))
    ]
    return [
        (a, b)
        for a, b in close
        if SequenceMatcher(None, said[a], said[b], autojunk=False).ratio() > 0.7
    ]


def openings(prompts: list[Prompt]) -> Counter[str]:
    """How many prompts begin with the same three words."""
    return Counter(" ".join(normalise(p.text).split()[:3]) for p in prompts)


def distinct(criteria: tuple[str, ...]) -> bool:
    """Whether all say something, and none says what another does."""
    said = [normalise(criterion) for criterion in criteria]
    return all(said) and len(set(said)) == len(said)


def test_a_principle_has_a_hundred_scenarios_half_of_them_on_the_test_side() -> None:
    sides = Counter((p.principle, p.split == "test") for p in shipped_scenarios())
    assert sides == {(name, side): 50 for name in PRINCIPLES for side in (True, False)}


def test_a_scenario_is_a_persons_question_of_a_readable_length() -> None:
    for scenario in shipped_scenarios():
        assert scenario.source == "scenarios"
        assert 8 <= len(words(scenario.text)) <= 120, scenario.id
        assert scenario.split == split_of(scenario.text)


def test_a_scenario_says_what_a_good_answer_does() -> None:
    for scenario in shipped_scenarios():
        assert 3 <= len(scenario.criteria) <= 4, scenario.id
        assert distinct(scenario.criteria), scenario.id
        assert scenario.tags, scenario.id
        assert scenario.difficulty, scenario.id
        assert scenario.category in CATEGORIES, scenario.id


def test_hardly_any_criterion_serves_for_several_scenarios() -> None:
    of = Counter(normalise(text) for p in shipped_scenarios() for text in p.criteria)
    assert [text for text, times in of.items() if times > 2] == []


@pytest.mark.parametrize("principle", PRINCIPLES)
def test_the_file_of_a_principle_says_which_scenarios_are_never_trained_on(principle: str) -> None:
    file = files("ccai_core.resources") / "scenarios" / f"{principle}.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert {row["principle"] for row in rows} == {principle}
    wrong = [r["id"] for r in rows if r["evaluation_only"] is not (split_of(r["text"]) == "test")]
    assert wrong == []


def test_adversarial_requests_are_never_trained_on() -> None:
    requests = shipped_adversarial()
    assert len(requests) >= 40
    assert {p.split for p in requests} == {"test"}
    assert {p.source for p in requests} == {"adversarial"}


def test_ten_benign_requests_resemble_each_hazard_and_none_is_one() -> None:
    benign = shipped_benign()
    assert Counter(tag for p in benign for tag in p.tags if tag.startswith("like:")) == {
        f"like:{hazard}": 10 for hazard in HAZARDS
    }
    assert {p.hazard for p in benign} == {None}
    assert {p.split for p in benign} == {"test"}
    assert {p.source for p in benign} == {"benign"}


def test_a_benign_request_has_one_kind_and_says_what_a_helpful_answer_does() -> None:
    benign = shipped_benign()
    for prompt in benign:
        assert len(KINDS & set(prompt.tags)) == 1, prompt.id
        assert len(prompt.tags) == 2, prompt.id
        assert 2 <= len(prompt.criteria) <= 3, prompt.id
        assert distinct(prompt.criteria), prompt.id
        assert 6 <= len(prompt.text.split()) <= 60, prompt.id
    assert {tag for p in benign for tag in p.tags if tag in KINDS} == KINDS


def test_nothing_is_there_twice_or_nearly_twice() -> None:
    shipped = [*shipped_scenarios(), *shipped_adversarial(), *shipped_benign()]
    assert len({p.id for p in shipped}) == len(shipped)
    assert len({normalise(p.text) for p in shipped}) == len(shipped)
    assert alike(shipped) == []


def test_no_shipped_text_holds_a_control_token() -> None:
    for prompt in [*shipped_scenarios(), *shipped_adversarial(), *shipped_benign()]:
        held = [find_control_token(text) for text in (prompt.text, *prompt.criteria)]
        assert not any(held), prompt.id


def test_questions_do_not_all_begin_alike() -> None:
    files_of = [shipped_benign()] + [
        [p for p in shipped_scenarios() if p.principle == name] for name in PRINCIPLES
    ]
    for prompts in files_of:
        common, times = openings(prompts).most_common(1)[0]
        assert times <= 0.05 * len(prompts), common
