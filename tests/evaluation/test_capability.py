"""The shipped items are sound, and a planted model is scored by its likeliest option."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from ccai_core.constitution import load_constitutional_config
from ccai_core.evaluation.capability import (
    TASK_TITLES,
    CapabilityItem,
    answer_item,
    capability_items,
    perplexity_paragraphs,
    read_paragraph,
)
from ccai_core.evaluation.judge import labelled_replies


class Texts:
    """Weighs a text by what a table says of its last words; every word is a token."""

    model, dtype = "texts@1", "float32"

    def __init__(self, table: dict[str, float]) -> None:
        self.table = table

    async def choose(self, *_: object) -> list[float]:
        raise AssertionError

    async def text_logprob(self, text: str) -> tuple[float, int]:
        ending = max((e for e in self.table if text.endswith(e)), key=len, default="")
        stem = text[: len(text) - len(ending)].split()
        return -2.0 * len(stem) + self.table.get(ending, 0.0), len(text.split())


def test_items_are_valid_unique_and_balanced() -> None:
    items = capability_items()
    counts = Counter(item.task for item in items)
    assert set(counts) == set(TASK_TITLES)
    assert all(count >= 60 for count in counts.values())
    assert len({item.id for item in items}) == len({item.question for item in items}) == len(items)
    for item in items:
        assert item.id.startswith(f"{item.task}-")
        assert len(item.options) == len(set(item.options)) == 4
        assert item.answer < 4
    for task, count in counts.items():
        positions = Counter(item.answer for item in items if item.task == task)
        assert max(positions.values()) - min(positions.values()) <= 1, task
        assert sum(positions.values()) == count


def test_sums_have_the_right_answers() -> None:
    sums = [i for i in capability_items() if i.question.startswith("What is ")]
    assert len(sums) >= 25
    for item in sums:
        term = item.question.removeprefix("What is ").rstrip("?")
        value = eval(term.replace("×", "*").replace("÷", "/"))
        assert float(item.options[item.answer]) == value, item.question


def test_a_right_option_is_not_known_by_its_length() -> None:
    longest = [
        max(range(4), key=lambda i, o=item.options: len(o[i])) == item.answer
        for item in capability_items()
        if len({len(o) for o in item.options}) == 4
    ]
    assert sum(longest) < 0.5 * len(longest)


def test_a_subset_takes_as_many_of_each_task() -> None:
    assert Counter(i.task for i in capability_items(7)) == dict.fromkeys(TASK_TITLES, 7)
    assert capability_items(7) == capability_items(7)
    assert len(capability_items(10_000)) == len(capability_items())


def test_prose_is_long_enough_and_not_from_the_constitution() -> None:
    paragraphs = perplexity_paragraphs()
    assert len(paragraphs) >= 16
    assert 1100 < sum(len(p.split()) for p in paragraphs) < 1500
    constitution = load_constitutional_config().model_dump_json()
    for text in [*paragraphs, *(r.reply for r in labelled_replies())]:
        assert not any(s in constitution for s in text.split(". ") if len(s) > 30)


@pytest.mark.parametrize(
    ("table", "chosen"),
    [
        ({" red": -1.0, " very deep blue": -6.0}, 0),
        # -4 in all but -1.33 a token: an option is not worse for being longer.
        ({" red": -2.0, " very deep blue": -4.0}, 1),
        ({" red": -1.0, " very deep blue": -3.0}, 0),
    ],
)
def test_the_likeliest_option_a_token_is_chosen(table: dict[str, float], chosen: int) -> None:
    item = CapabilityItem(
        id="x-1", task="x", question="The sea is", options=("red", "very deep blue"), answer=1
    )
    found = asyncio.run(answer_item(Texts(table), item))
    assert found.chosen == chosen
    assert found.right == (chosen == 1)
    assert found.scores[0] == pytest.approx(table[" red"])
    assert found.scores[1] == pytest.approx(table[" very deep blue"] / 3)


def test_paragraph_is_read_as_it_is() -> None:
    found = asyncio.run(read_paragraph(Texts({}), "one two three"))
    assert (found.nats, found.tokens) == (-6.0, 3)
