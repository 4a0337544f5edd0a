"""Several judges on the same items: the majority, and how far they agree beyond chance.

alpha = krippendorff_alpha([[1, 0, 1], [1, 0, None]], "nominal")
krippendorff_interval(ratings, "ordinal", seed=0)
majority([True, True, None])              # True; None on a tie
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ccai_core.evaluation.results import Interval

Level = Literal["nominal", "ordinal", "interval"]
# A judge's ratings of all items; None is no rating.
Ratings = Sequence[Sequence[float | None]]
Counts = NDArray[np.float64]
_RESAMPLES = 2_000


def majority(votes: Sequence[bool | None]) -> bool | None:
    """Return what most judges say; None on a tie, or where none says anything."""
    yes, no = votes.count(True), votes.count(False)
    return None if yes == no else yes > no


def krippendorff_alpha(ratings: Ratings, level: Level) -> float | None:
    """Return Krippendorff's alpha: 1 is agreement, 0 what chance gives, below 0 is worse.

    Args:
        ratings: a row a judge, a column an item.
        level: how different two ratings are: 'nominal' (all alike), 'ordinal' (by rank), 'interval'
            (by squared difference).

    None where nothing can be compared: no item has two ratings, or all ratings are equal.
    """
    counts, values = _counts(ratings)
    return _alpha(counts, values, level)


def krippendorff_interval(ratings: Ratings, level: Level, seed: int) -> Interval | None:
    """Return alpha with its 95% interval, from a bootstrap over items (Hayes and Krippendorff)."""
    counts, values = _counts(ratings)
    estimate = _alpha(counts, values, level)
    if estimate is None:
        return None
    rng = np.random.default_rng(seed)
    drawn = (counts[rng.integers(0, len(counts), len(counts))] for _ in range(_RESAMPLES))
    alphas = [a for sample in drawn if (a := _alpha(sample, values, level)) is not None]
    low, high = np.quantile(alphas, [0.025, 0.975])
    return Interval(
        estimate=estimate, low=min(float(low), estimate), high=max(float(high), estimate)
    )


def _counts(ratings: Ratings) -> tuple[Counts, Counts]:
    """Return how often each item got each value, and the values in order."""
    given = sorted({float(r) for row in ratings for r in row if r is not None})
    place = {value: i for i, value in enumerate(given)}
    items = len(ratings[0]) if ratings else 0
    counts = np.zeros((items, len(given)))
    for row in ratings:
        for item, rating in enumerate(row):
            if rating is not None:
                counts[item, place[float(rating)]] += 1
    return counts, np.asarray(given)


def _alpha(counts: Counts, values: Counts, level: Level) -> float | None:
    rated = counts.sum(axis=1)
    counts, rated = counts[rated >= 2], rated[rated >= 2]
    if not len(counts):
        return None
    # Pairs of ratings of one item, each item weighed by its ratings (Krippendorff 2011).
    pairs = counts[:, :, None] * counts[:, None, :]
    diagonal = np.arange(len(values))
    pairs[:, diagonal, diagonal] -= counts
    observed = (pairs / (rated - 1)[:, None, None]).sum(axis=0)
    totals = observed.sum(axis=1)
    n = totals.sum()
    expected = np.outer(totals, totals)
    expected[diagonal, diagonal] -= totals
    distance = _distances(totals, values, level)
    disagreement = (expected * distance).sum() / (n - 1)
    if not disagreement:
        return None
    return float(1 - (observed * distance).sum() / disagreement)


def _distances(totals: Counts, values: Counts, level: Level) -> Counts:
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "interval":
        return np.square(values[:, None] - values[None, :])
    below = np.cumsum(totals) - totals / 2
    return np.square(below[:, None] - below[None, :])
