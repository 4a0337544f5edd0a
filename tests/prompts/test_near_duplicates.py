"""Near-duplicates: what asks the same is found, what only looks alike is not; always the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ccai_core.prompts.near_duplicates import THRESHOLD, Match, NearDuplicates
from ccai_core.prompts.similarity import bag_of, shingles, similarity
from tests.planted_edits import another_question, planted, real_prompts

SAME = [
    ("How do I bake bread?", "Please, how do I bake the bread"),
    ("How do I bake bread?", "HOW CAN I BAKE BREAD?? Thank you!"),
    ("How do I bake bread?", "how do i bake braed"),
    ("What's a good gift for my sister?", "Whats a good gift for my sister"),
    ("Est-ce que je dois pardonner à mon frère ?", "est ce que je dois pardonner à mon frére"),
    ("Comment apprendre à mon fils à nager ?", "Bonjour, comment apprendre à nager à mon fils ?"),
    ("क्या मुझे अपने भाई को माफ कर देना चाहिए?", "कृपया बताइए, क्या मुझे अपने भाई को माफ कर देना चाहिए"),
    ("我的邻居从来不跟我打招呼，我应该怎么办？", "请问，我的邻居从来不跟我打招呼，我该怎么办"),
    ("我怎样才能原谅我的父亲？", "我怎么样才能原谅我父亲呢？"),
]
OTHER = [
    ("How do I bake bread?", "How do I fix a bike?"),
    ("How do I bake bread?", "How do I bake cakes?"),
    ("What is 17 times 23?", "What is 17 times 24?"),
    ("A train leaves Paris with 40 people, half leave in Lyon, how many passengers remain aboard?",
     "A train leaves Paris with 60 people, half leave in Lyon, how many passengers remain aboard?"),
    ("Comment faire du pain ?", "Comment réparer un vélo ?"),
    ("Quelle est la meilleure façon d'apprendre le piano ?",
     "Quelle est la meilleure façon d'apprendre le russe ?"),
    ("मैं रोटी कैसे बनाऊँ?", "मैं साइकिल कैसे ठीक करूँ?"),
    ("दिल्ली की जनसंख्या कितनी है?", "मुंबई की जनसंख्या कितनी है?"),
    ("如何烤面包？", "如何修自行车？"),
    ("学习西班牙语最好的方法是什么？", "学习弹钢琴最好的方法是什么？"),
    ("Hello", "Thanks"),
    ("?!", "..."),
    ("😀", "😢"),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second"), SAME)
def test_the_same_question_in_other_words(first: str, second: str) -> None:
    index = NearDuplicates()
    assert index.add("first", first) is None
    found = index.add("second", second)
    assert found is not None
    assert found.key == "first"
    assert THRESHOLD <= found.similarity <= 1
    assert len(index) == 1


@pytest.mark.parametrize(("first", "second"), OTHER)
def test_another_question_in_the_same_mould(first: str, second: str) -> None:
    index = NearDuplicates()
    assert index.add("first", first) is None
    assert index.add("second", second) is None
    assert len(index) == 2


def test_planted_edits_are_found_and_other_questions_are_not() -> None:
    """The bars of the issue; the benchmark measures them on more, by kind of edit."""
    dice, index = Random(7), NearDuplicates()
    texts = [t for i, t in enumerate(real_prompts()) if index.add(str(i), t) is None]
    texts = dice.sample(texts, min(600, len(texts)))
    edits = [dice.choice(list(planted(dice, text)))[1] for text in texts]
    others = [other for t in texts if (other := another_question(dice, t)) and other != t]
    right = sum(index.find(text) is not None for text in edits)
    wrong = sum(index.find(text) is not None for text in others)
    assert right / len(edits) >= 0.95
    assert right / (right + wrong) >= 0.98


def test_the_first_of_a_kind_stays_and_members_do_not_widen_it() -> None:
    index = NearDuplicates()
    ends = ("grey pink", "grey tan", "cyan tan")
    chain = [f"red green blue white black brown {end}" for end in ends]
    assert index.add("a", chain[0]) is None
    assert index.add("b", chain[1]) == Match("a", 0.875)
    # Near to b, which is not kept, and too far from a.
    assert index.add("c", chain[2]) is None


def test_the_nearest_is_told_and_of_equals_the_first() -> None:
    index = NearDuplicates()
    for key, text in {"far": "How could I bake a bread", "near": "How do I bake bread",
                      "again": "how DO i bake bread!"}.items():  # fmt: skip
        index.keep(key, text)
    assert index.find("How do I bake bread?") == Match("near", 1.0, exact=True)
    assert [m.key for m in index.matches("How do I bake bread?")] == ["near", "again", "far"]
    assert index.find("Where is my bike?") is None


def test_exact_is_by_words_and_their_order() -> None:
    index = NearDuplicates()
    index.add("a", "The dog bites the man")
    assert index.find("the dog - bites the man!") == Match("a", 1.0, exact=True)
    assert index.find("The man bites the dog") == Match("a", 1.0, exact=False)


def test_a_threshold_that_nothing_reaches_leaves_the_same_words() -> None:
    index = NearDuplicates(threshold=float("inf"))
    assert index.add("a", "How do I bake bread?") is None
    assert index.add("b", "How can I bake bread?") is None
    assert index.add("c", "how do I bake bread") == Match("a", 1.0, exact=True)


def test_the_answer_is_the_same_in_every_process() -> None:
    code = (
        "from random import Random\n"
        "from ccai_core.prompts.near_duplicates import NearDuplicates\n"
        "from tests.planted_edits import many\n"
        "index = NearDuplicates()\n"
        "print([index.add(str(i), text) for i, (text, _) in enumerate(many(300, 1))])\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1
    assert "Match(" in said.pop()


def test_long_texts_and_odd_characters_do_no_harm() -> None:
    index = NearDuplicates()
    long = " ".join(f"word{i}" for i in range(20_000))
    assert index.add("long", long) is None
    assert index.add("its end differs", long + " indeed") is not None
    for text in ("", " ", "\ud800", "\x00", "a" * 10_000, "１２３"):
        index.add(repr(text), text)
        assert index.find(text) is not None


@given(st.text(), st.text())
def test_similarity_is_a_number_the_same_both_ways(one: str, other: str) -> None:
    first, second = bag_of(one), bag_of(other)
    assert similarity(first, second) == pytest.approx(similarity(second, first))
    assert 0 <= similarity(first, second) <= 1
    assert similarity(first, first) == 1


WORDS = st.lists(st.sampled_from("what waht do i bake bread braed oven ovens 12 13".split()))


@example(["bread", "braed", "ovens"], ["what", "bread", "bread", "oven"])
@given(WORDS, WORDS)
def test_a_shortcut_never_hides_what_is_near(one: list[str], other: list[str]) -> None:
    first, second = bag_of(" ".join(one)), bag_of(" ".join(other))
    whole = similarity(first, second)
    quick = similarity(first, second, THRESHOLD)
    assert quick == whole or (quick == 0 and whole < THRESHOLD)


def test_hindi_words_are_whole_and_small_words_do_not_look_up() -> None:
    assert bag_of("हिन्दी में") == {"हिन्दी": 1, "में": 1}
    assert shingles(bag_of("What do you do?")) != []
    assert shingles(bag_of("What is love?")) == [" lo", "lov", "ove", "ve "]
