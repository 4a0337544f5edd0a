"""The prompts that are shipped: enough of them, on the right sides, none twice."""

from __future__ import annotations

from collections import Counter
from difflib import SequenceMatcher
from itertools import combinations

from ccai_core.constitution import load_constitutional_config
from ccai_core.prompts.scenarios import shipped_adversarial, shipped_scenarios
from ccai_core.prompts.splits import normalise, split_of
from ccai_core.quality import words
from ccai_core.types import Prompt


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


def test_every_principle_has_scenarios_half_of_them_on_the_test_side() -> None:
    scenarios = shipped_scenarios()
    sides = Counter((p.principle, "test" if p.split == "test" else "train") for p in scenarios)
    principles = load_constitutional_config().ids
    assert {principle for principle, _ in sides} == set(principles)
    for principle in principles:
        assert sides[principle, "train"] >= 20
        assert sides[principle, "train"] == sides[principle, "test"]


def test_a_scenario_is_a_persons_question_of_a_readable_length() -> None:
    for scenario in shipped_scenarios():
        assert scenario.source == "scenarios"
        assert 8 <= len(words(scenario.text)) <= 120, scenario.id
        assert scenario.split == split_of(scenario.text)


def test_adversarial_requests_are_never_trained_on() -> None:
    requests = shipped_adversarial()
    assert len(requests) >= 40
    assert {p.split for p in requests} == {"test"}
    assert {p.source for p in requests} == {"adversarial"}


def test_nothing_is_there_twice_or_nearly_twice() -> None:
    shipped = [*shipped_scenarios(), *shipped_adversarial()]
    assert len({p.id for p in shipped}) == len(shipped)
    assert len({normalise(p.text) for p in shipped}) == len(shipped)
    assert alike(shipped) == []
