"""Who sees what: balanced, and a function of chance alone."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ccai_core.errors import ConfigError
from ccai_core.human_evaluation.design import (
    DesignConfig,
    assign,
    choose_prompts,
    turn_sides,
    units_of,
)
from tests.human_evaluation.review_sample import BASE, MODELS, TUNED, prompts, review


def pages_of(count: int, seed: int = 0, models: tuple[str, ...] = MODELS, **design: int):
    config = DesignConfig(prompts=count, **design)
    units = units_of(prompts(count, models), models, config)
    return units, assign(units, config, random.Random(seed)), config


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 12),
    reviewers=st.integers(1, 9),
    each=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_every_item_gets_its_reviewers_and_pages_are_equally_long(count, reviewers, each, seed):
    each = min(each, reviewers)
    units, pages, _ = pages_of(count, seed, reviewers=reviewers, per_item=each)
    times = Counter((unit.kind, unit.prompt.id, unit.models) for page in pages for unit in page)
    assert set(times.values()) == {each}
    assert len(times) == len(units)
    assert max(map(len, pages)) - min(map(len, pages)) <= 1
    assert all(len({(u.kind, u.prompt.id, u.models) for u in p}) == len(p) for p in pages)


def test_all_two_reviewers_have_about_as_many_items_in_common():
    _, pages, _ = pages_of(14, reviewers=7, per_item=3)
    names = [{(u.kind, u.prompt.id, u.models) for u in page} for page in pages]
    common = [len(one & two) for one, two in combinations(names, 2)]
    # 42 items of three pairs of reviewers each, over 21 pairs: 6 would be exact.
    assert min(common) >= 4
    assert max(common) <= 8


def test_a_reviewer_rarely_sees_a_prompt_twice_when_it_can_be_avoided():
    _, pages, _ = pages_of(12, reviewers=6, per_item=2)
    often = [n for page in pages for n in Counter(u.prompt.id for u in page).values()]
    assert max(often) <= 2
    assert often.count(2) <= len(often) / 4


def test_each_model_stands_left_as_often_as_right():
    _, pages, _ = pages_of(12, reviewers=4, per_item=4)
    turned = [[u for u in page if u.kind == "pair"] for page in turn_sides(pages, random.Random(3))]
    for page in turned:
        left = [unit.models[0] for unit in page]
        assert left.count(BASE) == left.count(TUNED) == 6
    for prompt in {unit.prompt.id for unit in turned[0]}:
        left = [u.models[0] for page in turned for u in page if u.prompt.id == prompt]
        assert left.count(BASE) == left.count(TUNED) == 2


def test_prompts_are_taken_from_each_label_in_turn():
    every = [p.model_copy(update={"label": "rare" if i < 2 else "often"}) for i, p in
             enumerate(prompts(20))]  # fmt: skip
    chosen = choose_prompts(every, 4, random.Random(0))
    assert Counter(p.label for p in chosen) == {"rare": 2, "often": 2}


def test_three_models_are_compared_two_by_two():
    sheets, key = review(4, models=("a", "b", "c"), reviewers=2, per_item=2, checks=0)
    shown = Counter(tuple(sorted(i.models)) for i in key.reviewers[0].items if i.kind == "pair")
    assert shown == {("a", "b"): 4, ("a", "c"): 4, ("b", "c"): 4}
    assert len(sheets[0].items) == 4 * 6


def test_what_cannot_be_is_said():
    with pytest.raises(ValidationError, match="4 reviewers of each item are more than there are"):
        DesignConfig(reviewers=3, per_item=4)
    with pytest.raises(ValidationError, match="asks nothing"):
        DesignConfig(pairs=False, ratings=False)
    with pytest.raises(ConfigError, match="No prompt is left"):
        choose_prompts([], 3, random.Random(0))
