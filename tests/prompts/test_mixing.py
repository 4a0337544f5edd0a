"""Mixing: shares are kept where prompts allow, what they lack is said, and nothing is repeated."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ccai_core.prompts.apportioning import apportion, divide
from ccai_core.prompts.mixing import CategoryShares, MixConfig, Mixed, Unmet, mix
from ccai_core.types import Category, Prompt, Split

OTHERS: tuple[Category, ...] = ("ethical_dilemma", "philosophical", "practical_advice")


def some(
    count: int, category: Category, name: str = "", split: Split = "train", **fields: Any
) -> list[Prompt]:
    name = name or f"{category}-{split}"
    fields.setdefault("source", "test")
    return [
        Prompt(id=f"{name}-{n}", text=f"{name} no {n}?", split=split, category=category, **fields)
        for n in range(count)
    ]


def hazards(split: Split = "train", **counts: int) -> list[Prompt]:
    return [
        prompt
        for name, count in counts.items()
        for prompt in some(count, "hazard", f"{name}-{split}", split, hazard=name)
    ]


def plenty(each: int = 400) -> list[Prompt]:
    found = [p for category in OTHERS for p in some(each, category)]
    return [*found, *hazards(vcr=each, ssh=each, hte=each, cse=each)]


def categories(mixed: Mixed) -> dict[str, int]:
    return dict(Counter(str(p.category) for p in mixed.prompts))


# --- shares ---------------------------------------------------------------------------------------


def test_the_default_shares_and_hazards_in_equal_parts() -> None:
    mixed = mix(plenty(), MixConfig(target_size=1000))
    assert categories(mixed) == {
        "hazard": 400, "ethical_dilemma": 250, "philosophical": 200, "practical_advice": 150,
    }  # fmt: skip
    of_hazard = Counter(p.hazard for p in mixed.prompts if p.hazard)
    assert of_hazard == dict.fromkeys(("vcr", "ssh", "hte", "cse"), 100)
    wanted = {u.stratum: (u.wanted, u.got) for u in mixed.unmet if u.side == "test"}
    assert wanted == {
        "hazard": (400, 0), "ethical_dilemma": (250, 0), "philosophical": (200, 0),
        "practical_advice": (150, 0),
    }  # fmt: skip
    assert len(mixed.unmet) == len(wanted)


def test_shares_and_weights_of_ones_own() -> None:
    shares = CategoryShares(hazard=0.5, ethical_dilemma=0.5, philosophical=0, practical_advice=0)
    config = MixConfig(target_size=200, shares=shares, hazards={"vcr": 3, "hte": 0, "cse": 0})
    mixed = mix(plenty(), config)
    assert categories(mixed) == {"hazard": 100, "ethical_dilemma": 100}
    assert Counter(p.hazard for p in mixed.prompts if p.hazard) == {"vcr": 75, "ssh": 25}
    assert {u.side for u in mixed.unmet} == {"test"}


def test_red_teaming_without_a_code_is_a_hazard_of_its_own() -> None:
    prompts = [*hazards(vcr=90), *some(90, "hazard", "redteam")]
    config = MixConfig(target_size=100)
    assert Counter(p.hazard for p in mix(prompts, config).prompts) == {"vcr": 50, None: 50}
    config = MixConfig(target_size=100, hazards={"uncoded": 0})
    assert Counter(p.hazard for p in mix(prompts, config).prompts) == {"vcr": 90}


def test_personas_and_sources_are_represented_as_they_are() -> None:
    prompts = [
        *some(60, "hazard", "s", hazard="vcr", persona="skilled"),
        *some(30, "hazard", "u", hazard="vcr", persona="unskilled"),
        *some(30, "hazard", "o", hazard="vcr", persona="unskilled", source="other"),
    ]
    chosen = mix(prompts, MixConfig(target_size=40)).prompts
    found = Counter((p.persona, p.source) for p in chosen)
    assert found == {("skilled", "test"): 20, ("unskilled", "test"): 10, ("unskilled", "other"): 10}


def test_a_source_may_have_a_share() -> None:
    prompts = [
        *some(300, "philosophical", "a", source="big"),
        *some(100, "philosophical", "b", source="mid"),
        *some(30, "philosophical", "c", source="mine"),
    ]
    shares = CategoryShares(hazard=0, ethical_dilemma=0, philosophical=1, practical_advice=0)
    config = MixConfig(target_size=40, shares=shares, source_shares={"mine": 0.5})
    counts = Counter(p.source for p in mix(prompts, config).prompts)
    assert counts == {"mine": 20, "big": 15, "mid": 5}
    more = mix(prompts, config.model_copy(update={"target_size": 82}))
    assert Counter(p.source for p in more.prompts) == {"mine": 30, "big": 39, "mid": 13}
    assert Unmet(side="train", stratum="philosophical/mine", wanted=41, got=30) in more.unmet


# --- what shares lack -----------------------------------------------------------------------------


def test_what_a_hazard_lacks_is_taken_of_the_other_hazards_first() -> None:
    prompts = [p for p in plenty() if p.hazard != "cse"] + hazards(cse=10)
    mixed = mix(prompts, MixConfig(target_size=1000))
    assert categories(mixed)["hazard"] == 400
    assert Counter(p.hazard for p in mixed.prompts if p.hazard) == {
        "cse": 10, "vcr": 130, "ssh": 130, "hte": 130,
    }  # fmt: skip
    [short] = [u for u in mixed.unmet if u.side == "train"]
    assert short == Unmet(side="train", stratum="hazard/cse", wanted=100, got=10)


def test_what_a_category_lacks_is_taken_of_the_others_in_proportion() -> None:
    prompts = [p for p in plenty(900) if not p.hazard]
    mixed = mix(prompts, MixConfig(target_size=600))
    # 25 : 20 : 15 of 600, for there are no hazards
    assert categories(mixed) == {
        "ethical_dilemma": 250, "philosophical": 200, "practical_advice": 150,
    }  # fmt: skip
    assert Unmet(side="train", stratum="hazard", wanted=240, got=0) in mixed.unmet


def test_without_top_up_what_is_short_stays_short() -> None:
    prompts = [p for p in plenty() if p.hazard != "cse"] + hazards(cse=10)
    prompts = [p for p in prompts if p.category != "philosophical"]
    mixed = mix(prompts, MixConfig(target_size=1000, top_up=False))
    assert categories(mixed) == {"hazard": 310, "ethical_dilemma": 250, "practical_advice": 150}
    assert mixed.wanted["train"] == 1000


def test_more_than_there_is_takes_everything_once() -> None:
    prompts = plenty(10)
    mixed = mix(prompts, MixConfig(target_size=10_000))
    assert mixed.prompts == tuple(prompts)


# --- sizes ----------------------------------------------------------------------------------------


def test_without_a_size_it_is_as_large_as_the_shares_allow() -> None:
    prompts = [*hazards(vcr=500), *(p for c in OTHERS for p in some(50, c))]
    mixed = mix(prompts, MixConfig())
    # 50 of 25 % are 200 in all.
    assert mixed.limited_by["train"] == "ethical_dilemma"
    assert mixed.wanted["train"] == len(mixed.prompts) == 200
    assert categories(mixed) == {
        "hazard": 80, "ethical_dilemma": 50, "philosophical": 40, "practical_advice": 30,
    }  # fmt: skip


def test_a_category_that_is_away_or_hardly_there_does_not_shrink_the_set() -> None:
    mixed = mix([*some(300, "practical_advice"), *some(2, "philosophical")], MixConfig())
    assert len(mixed.prompts) == 302
    assert {u.stratum for u in mixed.unmet if u.side == "train"} == {
        "hazard", "ethical_dilemma", "philosophical",
    }  # fmt: skip


def test_the_sides_are_mixed_each_for_itself() -> None:
    prompts = [*plenty(200), *some(20, "philosophical", split="test"), *hazards("test", vcr=100),
               *some(50, "philosophical", "v", split="validation")]  # fmt: skip
    mixed = mix(prompts, MixConfig(target_size=100, test_size=60))
    by_side = Counter(p.split == "test" for p in mixed.prompts)
    assert by_side == {False: 100, True: 60}
    test = Counter(p.category for p in mixed.prompts if p.split == "test")
    assert test == {"hazard": 40, "philosophical": 20}
    assert {p.split for p in mixed.prompts} == {"train", "validation", "test"}


# --- which ones -----------------------------------------------------------------------------------


def test_the_choice_depends_on_content_and_seed_alone() -> None:
    prompts = plenty()
    first = mix(prompts, MixConfig(target_size=100))
    backwards = mix(prompts[::-1], MixConfig(target_size=100))
    assert {p.id for p in first.prompts} == {p.id for p in backwards.prompts}
    other = mix(prompts, MixConfig(target_size=100, seed=1))
    assert {p.id for p in first.prompts} != {p.id for p in other.prompts}
    assert categories(first) == categories(other)


def test_a_larger_set_holds_the_smaller_one() -> None:
    prompts = plenty()
    small = {p.id for p in mix(prompts, MixConfig(target_size=100)).prompts}
    assert small < {p.id for p in mix(prompts, MixConfig(target_size=200)).prompts}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=7, max_size=7),
    st.integers(1, 300),
    st.booleans(),
    st.integers(0, 5),
)
def test_whatever_there_is_nothing_is_repeated_or_left_over(
    counts: list[int], size: int, top_up: bool, seed: int
) -> None:
    prompts = [p for n, c in zip(counts, OTHERS, strict=False) for p in some(n, c)]
    prompts += hazards(vcr=counts[3], cse=counts[4], ssh=counts[5])
    prompts += some(counts[6], "hazard", "none")
    mixed = mix(prompts, MixConfig(target_size=size, top_up=top_up, seed=seed))
    ids = [p.id for p in mixed.prompts]
    assert len(set(ids)) == len(ids)
    assert [p.id for p in prompts if p.id in set(ids)] == ids
    if top_up:
        assert len(ids) == min(size, len(prompts))
    else:
        lacking = sum(u.wanted - u.got for u in mixed.unmet if u.side == "train")
        assert len(ids) == size - lacking


@given(
    st.dictionaries(st.text(max_size=3), st.floats(0, 100), min_size=1, max_size=9),
    st.integers(0, 1000),
    st.data(),
)
def test_whole_numbers_by_weight(weights: dict[str, float], count: int, data: Any) -> None:
    total = sum(weights.values())
    parts = divide(count, weights)
    assert sum(parts.values()) == (count if total > 0 else 0)
    for name, part in parts.items():
        assert total == 0 or abs(part - count * weights[name] / total) < 1 + 1e-6
    sizes = {name: data.draw(st.integers(0, 300)) for name in weights}
    capped = apportion(count, weights, sizes)
    assert all(0 <= capped[name] <= sizes[name] for name in weights)
    assert sum(capped.values()) == min(count, sum(sizes[n] for n, w in weights.items() if w > 0))


def test_rounding_favours_no_part_over_many_strata() -> None:
    parts = [divide(1, {f"{n}a": 1, f"{n}b": 1}) for n in range(400)]
    wins = Counter(name[-1] for part in parts for name, got in part.items() if got)
    assert 150 < wins["a"] < 250


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"shares": {"hazard": 0.5}}, "must sum to 1, but hazard 0.5, .* sum to 1.1"),
        ({"shares": {"hazrd": 0.5}}, "hazrd"),
        ({"shares": {"hazard": -0.4}}, "greater than or equal to 0"),
        ({"hazards": {"vrc": 1}}, "'vrc' is no hazard. Did you mean 'vcr'?"),
        ({"hazards": {"vcr": -1}}, "vcr: a weight is 0 or more, not -1"),
        ({"source_shares": {"a": 0.7, "b": 0.7}}, "together they are 1.4; at most 1"),
        ({"source_shares": {"a": 2}}, "a: a share is from 0 to 1, not 2"),
        ({"target_size": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MixConfig.model_validate(values)
