"""Only held-out prompts, none that was trained on, spread evenly, always the same ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from ccai_core.errors import DataError
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.evaluation.items import select_items, texts_trained_on
from ccai_core.prompts.leaks import Trained
from ccai_core.types import Prompt, Split

SMALL = EvaluationConfig(safety_prompts=6, scenario_prompts=6)


def prompts(source: str, count: int, kinds: tuple[str, ...], split: Split = "test") -> list[Prompt]:
    field = "principle" if source == "scenarios" else "hazard"
    return [
        Prompt.model_validate(
            {"id": f"{source}-{i}", "text": f"{source} {split} question {i}?", "source": source,
             "split": split, field: kinds[i % len(kinds)]}
        )
        for i in range(count)
    ]  # fmt: skip


SCENARIOS = prompts("scenarios", 40, ("emptiness", "mindfulness", "non_duality"))
REQUESTS = prompts("adversarial", 4, ("vcr", "prv"))
AILUMINATE = prompts("ailuminate", 40, ("vcr", "prv", "hte"))


def test_strata_are_served_in_turn_and_the_train_side_is_left_alone() -> None:
    train = prompts("scenarios", 40, ("emptiness",), split="train")
    items = select_items(SMALL, AILUMINATE, [*train, *SCENARIOS], REQUESTS, ())
    assert all(p.split == "test" for p in (*items.safety, *items.scenarios))
    assert Counter(p.hazard for p in items.safety) == {"vcr": 2, "prv": 2, "hte": 2}
    assert set(Counter(p.principle for p in items.scenarios).values()) == {2}
    assert {p.source for p in items.safety} == {"ailuminate"}
    assert "6 held-out AILuminate prompts" in items.notes[0]


def test_choice_is_deterministic_whatever_the_order_and_follows_the_seed() -> None:
    first = select_items(SMALL, AILUMINATE, SCENARIOS, REQUESTS, ())
    assert select_items(SMALL, AILUMINATE[::-1], SCENARIOS[::-1], REQUESTS, ()) == first
    other = SMALL.model_copy(update={"seed": 1})
    assert select_items(other, AILUMINATE, SCENARIOS, REQUESTS, ()).texts != first.texts


@pytest.mark.parametrize("given", [None, []])
def test_without_ailuminate_safety_takes_requests_and_scenarios_and_says_so(
    given: list[Prompt] | None,
) -> None:
    items = select_items(SMALL, given, SCENARIOS, REQUESTS, ())
    assert Counter(p.source for p in items.safety) == {"adversarial": 4, "scenarios": 2}
    assert "4 shipped adversarial requests and 2 contemplative scenarios" in items.notes[0]
    assert len(items.texts) == 10, "a prompt of both parts is answered once"


def test_a_leak_is_refused_and_listed_whatever_its_spelling() -> None:
    leaked = select_items(SMALL, AILUMINATE, SCENARIOS, REQUESTS, ()).safety[0]
    shouted = Trained("t-1", "mine", leaked.text.upper() + " !!")
    with pytest.raises(DataError, match=rf"1 evaluation prompts.*{leaked.id} ") as error:
        select_items(
            SMALL,
            AILUMINATE,
            SCENARIOS,
            REQUESTS,
            [Trained("t-0", "mine", "Some other matter"), shouted],
        )
    assert "train side" in str(error.value)
    assert leaked.text not in str(error.value), "it may be harmful, and errors are logged"


def test_many_leaks_are_counted() -> None:
    trained_on = [Trained(p.id, "mine", p.text) for p in AILUMINATE]
    with pytest.raises(DataError, match=r"6 evaluation prompts.* and 1 more"):
        select_items(SMALL, AILUMINATE, SCENARIOS, REQUESTS, trained_on)


def test_training_texts_come_from_the_users_turns(tmp_path: Path) -> None:
    def line(text: str) -> str:
        turn = {"role": "assistant", "content": f"An answer to {text}"}
        other = {"role": "assistant", "content": f"Another answer to {text}"}
        return json.dumps(
            {"prompt": [{"role": "user", "content": text}], "chosen": [turn], "rejected": [other],
             "principle": "p", "prompt_id": "1", "source": "s", "critique": "c", "provenance": {}}
        )  # fmt: skip

    file = tmp_path / "pairs.jsonl"
    file.write_text(line("Is THIS it?") + "\n" + line("And that?") + "\n")
    assert [said.text for said in texts_trained_on(file)] == ["Is THIS it?", "And that?"]


def test_duplicates_count_once_and_shortfalls_are_told() -> None:
    double = [p.model_copy(update={"id": p.id + "b", "text": p.text.upper()}) for p in REQUESTS]
    items = select_items(SMALL, [*REQUESTS, *double], SCENARIOS[:3], [], ())
    assert len(items.safety) == 4
    assert "6 safety prompts were asked for; only 4 are held out." in items.notes
    assert "6 scenarios were asked for; only 3 are held out." in items.notes


def test_nothing_held_out_is_an_error() -> None:
    with pytest.raises(DataError, match="test side"):
        select_items(SMALL, None, prompts("scenarios", 9, ("emptiness",), "train"), [], ())
