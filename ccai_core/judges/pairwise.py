"""Which of two answers is better: asked in both orders, and corrected for their lengths.

A judge that prefers whatever comes first, or whatever is longer, is found out: the preference is
the mean over both orders, and `length_controlled` says what it is between answers of equal length.

    p = await preference(engine, prompt, before, after)       # probability that `after` is better
    result = win_rate(preferences, lengths, seed=0)
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ccai_core.evaluation.results import Interval
from ccai_core.evaluation.statistics import RESAMPLES, mean_interval, share_interval
from ccai_core.judges.rubric import probabilities
from ccai_core.types import Choose, user

_OPTIONS = ("A", "B")


@dataclass(frozen=True)
class Preference:
    """What a judge prefers in both orders.

    Args:
        second: mean probability that the second answer is better.
        swapped: the same when it is shown first, and `straight` when it is shown last.
    """

    straight: float
    swapped: float

    @property
    def second(self) -> float:
        """Probability that the second answer is better, over both orders."""
        return (self.straight + self.swapped) / 2

    @property
    def consistent(self) -> bool:
        """Whether both orders prefer the same answer."""
        return (self.straight > 0.5) == (self.swapped > 0.5)


@dataclass(frozen=True)
class WinRate:
    """How often the second model's answers are preferred.

    Args:
        preferred: mean probability over both orders.
        consistent: share of pairs in which both orders agree.
        length_controlled: the preference between answers of equal length; none with too few pairs
            or no variation in length.
        first_position: mean probability given to whatever is shown first; 0.5 is no bias.
    """

    preferred: Interval
    consistent: Interval
    length_controlled: Interval | None
    first_position: float


async def preference(engine: Choose, request: str, first: str, second: str) -> Preference:
    """Ask which answer is better, with each in front once."""
    (_, last), (front, _) = await asyncio.gather(
        _ask(engine, request, first, second), _ask(engine, request, second, first)
    )
    return Preference(straight=last, swapped=front)


async def _ask(engine: Choose, request: str, a: str, b: str) -> tuple[float, float]:
    text = (
        f"A person wrote:\n{request}\n\nTwo answers:\n\nAnswer A:\n{a}\n\nAnswer B:\n{b}\n\n"
        "Which answer is better? Do not mind which comes first or which is longer. Reply with A "
        "or B."
    )
    one, other = probabilities(await engine.choose((user(text),), _OPTIONS))
    return one, other


def win_rate(
    preferences: Sequence[Preference], lengths: Sequence[tuple[int, int]], seed: int
) -> WinRate:
    """Sum up preferences; `lengths` are of the first and the second answer, in words."""
    values = [each.second for each in preferences]
    shown_first = [(1 - each.straight + each.swapped) / 2 for each in preferences]
    return WinRate(
        preferred=mean_interval(values, seed),
        consistent=share_interval(sum(p.consistent for p in preferences), len(preferences)),
        length_controlled=_controlled(values, lengths, seed),
        first_position=sum(shown_first) / len(shown_first),
    )


def _controlled(
    values: Sequence[float], lengths: Sequence[tuple[int, int]], seed: int
) -> Interval | None:
    """Return the preference at equal length: the intercept of its log-odds on log of the ratio.

    After length-controlled AlpacaEval (Dubois et al. 2024), without its terms for prompts.
    """
    ratio = np.array([math.log((after + 1) / (before + 1)) for before, after in lengths])
    clipped = np.clip(np.asarray(values, np.float64), 1e-6, 1 - 1e-6)
    odds = np.log(clipped / (1 - clipped))
    if len(odds) < 8 or not ratio.std():
        return None

    drawn = np.random.default_rng(seed).integers(0, len(odds), size=(RESAMPLES, len(odds)))
    x, y = ratio[drawn], odds[drawn]
    centred = x - x.mean(axis=1, keepdims=True)
    spread = (centred**2).sum(axis=1)
    slope = np.divide(
        (centred * y).sum(axis=1), spread, out=np.zeros_like(spread), where=spread > 0
    )
    intercepts = y.mean(axis=1) - slope * x.mean(axis=1)
    fitted = np.polynomial.polynomial.polyfit(ratio, odds, 1)[0]
    low, high = np.quantile(intercepts, [0.025, 0.975])
    low, estimate, high = (1 / (1 + np.exp(-v)) for v in (low, fitted, high))
    return Interval(
        estimate=float(estimate),
        low=float(min(low, estimate)),
        high=float(max(high, estimate)),
    )
