"""How much longer chosen answers are than rejected ones, on average, and a limit to it.

balance = LengthBalance(1.5)
balance.admits(log_ratio(chosen, rejected))     # True: and it counts
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ccai_core.quality_measures import words


class LengthBalance:
    """Admits pairs as long as their mean length ratio stays within a limit, both ways.

    The mean is geometric: twice as long and half as long cancel out. Every pair is admitted against
    those before it, so that the mean is within the limit wherever the list is cut, once there are
    ten; the mean of a few says nothing.
    """

    _FEW = 10

    def __init__(self, limit: float | None) -> None:
        self._limit = math.inf if limit is None else math.log(limit)
        self._sum, self._count = 0.0, 0

    def admits(self, ratio: float) -> bool:
        """Whether a pair of this (log) ratio may come in; if so it counts from now on."""
        if abs(self._sum + ratio) > self._limit * max(self._count + 1, self._FEW):
            return False
        self._sum += ratio
        self._count += 1
        return True


def log_ratio(chosen: str, rejected: str) -> float:
    """Return the logarithm of how many times as many words one text has as the other."""
    return math.log(max(1, len(words(chosen))) / max(1, len(words(rejected))))


def mean_ratio(log_ratios: Sequence[float]) -> float | None:
    """Return the geometric mean of ratios, given as logarithms; None of none."""
    return round(math.exp(math.fsum(log_ratios) / len(log_ratios)), 3) if log_ratios else None
