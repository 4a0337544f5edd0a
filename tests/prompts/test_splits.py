"""The split: a pure function of what a text says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccai_core.prompts.splits import normalise, split_of

TEXTS = [f"What should I do about matter {i}?" for i in range(2000)]


@pytest.mark.parametrize(
    "same",
    ["is it right to lie", "IS IT RIGHT TO LIE?!", " Is  it\nright — to «lie»? ",
     "Is it right to ｌｉｅ"],
)  # fmt: skip
def test_case_punctuation_spacing_and_width_do_not_matter(same: str) -> None:
    assert normalise(same) == "is it right to lie"
    assert split_of(same) == split_of("Is it right to lie?")


def test_about_half_is_on_the_test_side() -> None:
    assert sum(split_of(text) == "test" for text in TEXTS) == pytest.approx(1000, abs=100)
    assert sum(split_of(text, 0.1) == "test" for text in TEXTS) == pytest.approx(200, abs=50)


def test_nothing_and_everything() -> None:
    assert {split_of(text, 0) for text in TEXTS} == {"train", "validation"}
    assert {split_of(text, 1) for text in TEXTS} == {"test"}


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_what_is_test_stays_test_at_a_larger_fraction(text: str, one: float, other: float) -> None:
    if split_of(text, min(one, other)) == "test":
        assert split_of(text, max(one, other)) == "test"


def test_it_is_the_same_for_ever() -> None:
    """A published split must not move: these sides are part of the interface."""
    assert [split_of(text) for text in TEXTS[:8]] == SIDES
    code = f"from ccai_core.prompts.splits import split_of; print(split_of({TEXTS[0]!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == SIDES[0]


SIDES = ["test", "test", "test", "train", "test", "test", "train", "test"]
