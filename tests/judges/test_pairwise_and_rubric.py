"""Both orders are asked, a love of length is taken off, a rating is an expected value."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from ccai_core.judges.pairwise import Preference, preference, win_rate
from ccai_core.judges.rubric import expected_rating
from ccai_core.types import Message, assistant, user
from tests.evaluation.planted import Writer


class Chooser(Writer):
    def __init__(self, *scores: float) -> None:
        super().__init__(lambda _: "")
        self.scores, self.seen = scores, list[str]()

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        self.seen.append(messages[-1].content)
        return list(self.scores)


def test_a_judge_that_takes_what_comes_first_prefers_neither() -> None:
    engine = Chooser(math.log(0.8), math.log(0.2))
    found = asyncio.run(preference(engine, "q", "one", "two"))
    assert found.second == pytest.approx(0.5)
    assert not found.consistent
    assert engine.seen[0].index("one") < engine.seen[0].index("two")
    assert engine.seen[1].index("two") < engine.seen[1].index("one")
    result = win_rate([found] * 10, [(5, 5)] * 10, seed=0)
    assert result.first_position == pytest.approx(0.8)
    assert result.consistent.estimate == 0
    assert result.length_controlled is None, "lengths do not vary"


def test_a_judge_that_only_likes_length_is_corrected() -> None:
    rng = np.random.default_rng(0)
    lengths = [(50, int(n)) for n in rng.integers(40, 160, size=60)]
    odds = [2 * math.log((b + 1) / (a + 1)) + 0.1 * rng.normal() for a, b in lengths]
    values = [1 / (1 + math.exp(-o)) for o in odds]
    result = win_rate([Preference(v, v) for v in values], lengths, seed=0)
    assert result.preferred.low > 0.6
    assert result.length_controlled is not None
    assert abs(result.length_controlled.estimate - 0.5) < 0.05


def test_a_better_answer_of_equal_length_stays_better() -> None:
    rng = np.random.default_rng(1)
    lengths = [(50, int(n)) for n in rng.integers(30, 80, size=60)]
    result = win_rate([Preference(0.8, 0.9)] * 60, lengths, seed=0)
    assert result.length_controlled is not None
    assert result.length_controlled.low > 0.7


def test_a_rating_is_the_mean_over_all_grades() -> None:
    even = asyncio.run(expected_rating(Chooser(*[-1.0] * 5), [user("q"), assistant("a")], "Clear?"))
    assert even == pytest.approx(3)
    tilted = Chooser(-9.0, -9.0, -9.0, math.log(0.5), math.log(0.5))
    assert asyncio.run(expected_rating(tilted, [assistant("a")], "?")) == pytest.approx(
        4.5, abs=0.01
    )
