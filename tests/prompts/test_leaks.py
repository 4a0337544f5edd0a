"""Leaks: what evaluations ask is found in training data, in any spelling; nothing else is."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from ccai_core.errors import DataError
from ccai_core.prompts.cleaning import clean
from ccai_core.prompts.leaks import (
    Leak,
    find_leaks,
    refuse_held_out,
    refuse_leaks,
    shipped_evaluation_prompts,
    trained_on,
)
from ccai_core.prompts.scenarios import shipped_scenarios
from ccai_core.prompts.splits import split_of
from ccai_core.types import Message, PreferencePair, Prompt, assistant, user
from tests.planted_edits import EDITS, hh_first_turns


def prompt(text: str, id_: str = "x", **fields: Any) -> Prompt:
    return Prompt.model_validate(
        {"id": id_, "text": text, "source": "test", "split": split_of(text), **fields}
    )


def pair(*turns: Message, id_: str = "p", source: str = "mine") -> PreferencePair:
    return PreferencePair(
        prompt=turns, chosen=(assistant("Gladly."),), rejected=(assistant("No."),),
        principle="p", prompt_id=id_, source=source, critique="c", provenance={},
    )  # fmt: skip


MORE = "And which flour would suit somebody who cannot digest wheat, rye or barley?"


def on_side(side: str) -> str:
    texts = (f"Is matter number {i} settled by now?" for i in range(100))
    return next(text for text in texts if (split_of(text) == "test") == (side == "test"))


@pytest.mark.parametrize("kind", EDITS)
def test_every_planted_edit_of_what_is_evaluated_is_found(kind: str) -> None:
    dice, evaluated = Random(3), shipped_evaluation_prompts()
    edits = {p.id: EDITS[kind](dice, p.text) for p in evaluated}
    planted = {id_: text for id_, text in edits.items() if text}
    trained = trained_on(prompt(text, f"t-{id_}") for id_, text in planted.items())
    found = {(leak.trained_id, leak.evaluated_id) for leak in find_leaks(trained, evaluated)}
    assert found == {(f"t-{id_}", id_) for id_ in planted}


def test_all_that_is_shipped_is_free_of_leaks() -> None:
    trained = [p for p in shipped_scenarios() if p.split != "test"]
    evaluated = shipped_evaluation_prompts()
    assert {p.source for p in evaluated} == {"scenarios", "adversarial", "benign"}
    assert find_leaks(trained_on(trained), evaluated) == []


def test_what_cleaning_leaves_of_real_prompts_has_no_leak_between_its_sides() -> None:
    texts = hh_first_turns()
    if not texts:
        pytest.skip("HH's test set is not in ../shared/data")

    def leaks(prompts: tuple[Prompt, ...]) -> list[Leak]:
        trained = trained_on(p for p in prompts if p.split != "test")
        return find_leaks(trained, [p for p in prompts if p.split == "test"])

    prompts = tuple(prompt(text, str(i)) for i, text in enumerate(texts))
    assert leaks(prompts) != []
    assert leaks(clean(prompts).prompts) == []


def test_each_evaluated_prompt_is_named_with_each_training_text() -> None:
    evaluated = [prompt("How do I bake bread?", "e1"), prompt("How can I bake bread?", "e2"),
                 prompt("How do I fix a bike?", "e3")]  # fmt: skip
    trained = trained_on([prompt("Where is it?", "t0"), prompt("HOW DO I BAKE BREAD", "t1"),
                          prompt("Please, how do I bake the bread?", "t2")])  # fmt: skip
    found = find_leaks(trained, evaluated)
    assert [(leak.evaluated_id, leak.trained_id) for leak in found] == [
        ("e1", "t1"), ("e1", "t2"), ("e2", "t1"), ("e2", "t2"),
    ]  # fmt: skip
    assert found[0] == Leak(trained_id="t1", evaluated_id="e1", source="test", similarity=1.0)


def test_any_turn_of_the_user_counts_and_the_models_do_not() -> None:
    evaluated = [prompt("How do I bake bread?", "e")]
    said = pair(user("How do I bake bread?"), assistant("With flour."), user(MORE))
    answered = pair(user("Ask me something."), assistant("How do I bake bread?"), user("Well."))
    assert len(find_leaks(trained_on([said]), evaluated)) == 1
    assert find_leaks(trained_on([answered]), evaluated) == []


def test_a_conversation_is_the_same_only_as_a_whole() -> None:
    turns = (user("My sister lost her job."), assistant("Oh."), user("Why is that?"))
    evaluated = [prompt("Why is that?", "e", context=turns[:2])]
    assert find_leaks(trained_on([pair(user("Why is that?"))]), evaluated) == []
    assert len(find_leaks(trained_on([pair(*turns)]), evaluated)) == 1


def test_the_error_lists_by_id_and_counts_the_rest() -> None:
    evaluated = [prompt(f"How do I bake bread number {i}?", f"e{i}") for i in range(8)]
    trained = trained_on(prompt(p.text.upper(), f"t-{p.id}") for p in evaluated)
    with pytest.raises(DataError) as error:
        refuse_leaks(trained, evaluated)
    said = str(error.value)
    assert said.startswith("8 evaluation prompts are in the training pairs")
    assert "e0 (test) as t-e0, " in said
    assert " and 3 more" in said
    assert "bread" not in said.casefold(), "texts may be harmful, and errors are logged"
    refuse_leaks(trained[:0], evaluated)


# --- before training ------------------------------------------------------------------------------


def test_pairs_of_what_is_shipped_for_evaluation_are_refused() -> None:
    held_out = shipped_evaluation_prompts()[0]
    with pytest.raises(DataError, match=rf"1 evaluation prompts.*{held_out.id} \(scenarios\) as p"):
        refuse_held_out([pair(user("Please: " + held_out.text.lower()))])


@pytest.mark.parametrize("source", ["scenarios", "hh-rlhf/harmless-base", "ailuminate-demo"])
def test_the_test_side_of_our_sources_is_refused(source: str) -> None:
    with pytest.raises(
        DataError, match=rf"1 prompts of .* held out for evaluation: q \({source}\)"
    ):
        refuse_held_out([pair(user(on_side("test")), id_="q", source=source)] * 2)
    refuse_held_out([pair(user(on_side("train")), source=source)])


def test_pairs_from_elsewhere_may_be_on_either_side() -> None:
    refuse_held_out(
        [pair(user(on_side(side)), source="ultrafeedback") for side in ("test", "train")]
    )


def test_a_source_that_is_only_for_evaluation_is_never_trained_on() -> None:
    with pytest.raises(DataError, match=r"held out for evaluation: p \(mt-bench\)"):
        refuse_held_out([pair(user(on_side("train")), source="mt-bench")])


def test_training_refuses_before_any_weights_are_loaded(tmp_path: Path) -> None:
    from ccai_core.dpo import train
    from ccai_core.models import ModelRef
    from ccai_core.training_config import TrainingConfig

    file = tmp_path / "pairs.jsonl"
    leaking = pair(user(shipped_evaluation_prompts()[0].text))
    file.write_text("\n".join(p.model_dump_json() for p in [leaking, pair(user("Why?"))]))
    model = ModelRef(name="none", revision="0", path=tmp_path / "none", requested="none")
    with pytest.raises(DataError, match="1 evaluation prompts are in the training pairs"):
        train(TrainingConfig(), model, file, tmp_path / "out", device="cpu")
