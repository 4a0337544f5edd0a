"""Several judges on the same items: the majority, and how far they agree beyond chance.

alpha = krippendorff_alpha([[1, 0, 1], [1, 0, None]], "nominal")
krippendorff_interval(ratings, "ordinal", seed=0)
majority([True, True, None])              # True; None on a tie
most_say([0.9, 0.7, 0.2])                 # 0.7, the median: above 0.5 where the majority is
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ccai_core.evaluation.results import Interval

Level = Literal["nominal", "ordinal", "interval"]
# A judge's ratings of all items; None is no rating.
Ratings = Sequence[Sequence[float | None]]
Counts = NDArray[np.float64]
_RESAMPLES = 2_000
_YES = 0.5


def majority(votes: Sequence[bool | None]) -> bool | None:
    """Return what most judges say; None on a tie, or where none says anything."""
    yes, no = votes.count(True), votes.count(False)
    return None if yes == no else yes > no


def most_say(probabilities: Sequence[float | None]) -> float | None:
    """Return the median judge's probability; None where there is no majority.

    It is above 0.5 exactly where most of the judges that have a verdict are.
    """
    given = [value for value in probabilities if value is not None]
    if majority([value > _YES for value in given]) is None:
        return None
    return median(given)


def krippendorff_alpha(ratings: Ratings, level: Level) -> float | None:
    """Return Krippendorff's alpha: 1 is agreement, 0 what chance gives, below 0 is worse.

    Args:
        ratings: a row a judge, a column an item.
        level: how different two ratings are: 'nominal' (all alike), 'ordinal' (by rank), 'interval'
            (by squared difference).

    None where nothing can be compared: no item has two ratings, or all ratings are equal.
    """
    items, alpha = _prepared(ratings, level)
    return alpha(items)


def krippendorff_interval(
    ratings: Ratings, level: Level, seed: int, belongs: Sequence[str] = ()
) -> Interval | None:
    """Return alpha with its 95% interval, from a bootstrap over items (Hayes and Krippendorff).

    Args:
        ratings: a row a judge, a column an item.
        level: as in `krippendorff_alpha`.
        seed: of the draws.
        belongs: what each item belongs to (both answers to one prompt belong together); whole
            groups are drawn then. Empty: every item is its own.
    """
    items, alpha = _prepared(ratings, level)
    estimate = alpha(items)
    if estimate is None:
        return None
    groups: dict[str, list[int]] = {}
    for item in range(len(items)):
        groups.setdefault(belongs[item] if belongs else str(item), []).append(item)
    members = [np.asarray(group) for group in groups.values()]
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(0, len(members), len(members)) for _ in range(_RESAMPLES))
    samples = (items[np.concatenate([members[group] for group in draw])] for draw in drawn)
    alphas = [a for sample in samples if (a := alpha(sample)) is not None]
    low, high = np.quantile(alphas, [0.025, 0.975])
    return Interval(
        estimate=estimate, low=min(float(low), estimate), high=max(float(high), estimate)
    )


def _prepared(ratings: Ratings, level: Level) -> tuple[Counts, Callable[[Counts], float | None]]:
    """Return a row an item with all that alpha needs of it, and alpha of such rows."""
    if level == "interval":
        return _moments(ratings), _interval_alpha
    counts, values = _counts(ratings)
    return counts, lambda rows: _alpha(rows, values, level)


def _moments(ratings: Ratings) -> Counts:
    """Return, for each item, how many ratings it has, their sum and their sum of squares.

    Scores rarely repeat, so a table of values by values, as for the other levels, would be huge.
    """
    given = np.asarray([[np.nan if r is None else r for r in row] for row in ratings], np.float64)
    if not given.size:
        return np.zeros((0, 3))
    # About the mean, or squares of large numbers would cancel.
    given -= np.nanmean(given) if np.isfinite(given).any() else 0.0
    known = np.isfinite(given)
    filled = np.where(known, given, 0.0)
    return np.stack([known.sum(axis=0), filled.sum(axis=0), (filled**2).sum(axis=0)], axis=1)


def _interval_alpha(items: Counts) -> float | None:
    items = items[items[:, 0] >= 2]
    if not len(items):
        return None
    rated, sums, squares = items.T
    within = (2 * (rated * squares - sums**2) / (rated - 1)).sum()
    n = rated.sum()
    between = 2 * (n * squares.sum() - sums.sum() ** 2) / (n - 1)
    # Ratings that are all alike leave a trace of rounding.
    if between <= 1e-12 * max(1.0, float(squares.sum())):
        return None
    return float(1 - within / between)


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
    distance = _distances(totals, level)
    disagreement = (expected * distance).sum() / (n - 1)
    if not disagreement:
        return None
    return float(1 - (observed * distance).sum() / disagreement)


def _distances(totals: Counts, level: Level) -> Counts:
    if level == "nominal":
        return 1.0 - np.eye(len(totals))
    below = np.cumsum(totals) - totals / 2
    return np.square(below[:, None] - below[None, :])
