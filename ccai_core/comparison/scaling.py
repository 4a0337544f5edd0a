"""A measure over model size: a line in the logarithm of the number of weights, and how sure it is.

The line is fitted by least squares. Its interval is a bootstrap over items: the same items are
drawn for all sizes, each size's measure is computed from them, and the line is fitted again. That
says how sure the line is of these models on other items; it does not say that the measure follows a
line. How far each size is from the line through the others says something about that.

    trend(columns, points, "after training", seed=0)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ccai_core.comparison.results import Band, Point, Series, Trend
from ccai_core.comparison.values import Column, of_resampled, same_tokens, shared
from ccai_core.evaluation.results import Interval
from ccai_core.evaluation.statistics import LEAST_ITEMS, Floats, Z, percentiles

LEAST_SIZES = 3
_RESAMPLES = 1_999
# Weights of a bootstrap are resamples x items: of AILuminate's 12,000 not all at once.
_AT_ONCE = 4_000_000
_PLACES = 25
# Drawn from intervals nothing need be widened for few items: the intervals are already.
_MANY = 1_000_000


def trend(
    points: Sequence[Point],
    columns: Sequence[Column | None],
    series: Series,
    seed: int,
    minus: Sequence[Column | None] = (),
) -> Trend | None:
    """Fit a line; none where there are fewer than three sizes, or they cannot be compared.

    Args:
        points: what was measured, a size each.
        columns: the items of each, in the same order.
        series: what the points are.
        seed: of the bootstrap.
        minus: where the points are differences, the items of what is subtracted.
    """
    sizes = np.log10([point.parameters for point in points])
    if len(set(sizes.tolist())) < LEAST_SIZES:
        return None
    estimates = np.asarray([point.value.estimate for point in points], np.float64)
    every = (*columns, *minus)
    there = [column for column in every if column is not None]
    keys = shared(there) if len(there) == len(every) else []
    if not same_tokens(there, keys):
        # Perplexity is by token: of different tokenizers it is not the same quantity.
        return None
    if len(keys) >= LEAST_ITEMS:
        count = len(points)
        # What all sizes have can be less than what each was measured on.
        first, *drawn = _by_items(there, keys, seed)
        values = np.vstack([first, *drawn])
        values = values[:, :count] - (values[:, count:] if minus else 0.0)
        fitted, resampled = values[0], values[1:]
    else:
        keys, fitted = [], estimates
        resampled = _by_intervals(points, seed)
    intercept, slope = _lines(sizes, fitted[None, :])
    intercepts, slopes = _lines(sizes, resampled)
    n = len(keys) or _MANY
    grid = np.linspace(sizes.min(), sizes.max(), _PLACES)
    return Trend(
        series=series,
        points=tuple(points),
        slope=percentiles(float(slope[0]), slopes, n),
        line=tuple(
            Band(
                parameters=float(10**x),
                value=percentiles(float(intercept[0] + slope[0] * x), intercepts + slopes * x, n),
            )
            for x in grid
        ),
        n=len(keys),
        resampled="items" if keys else "intervals",
        worst_miss=_worst_miss(sizes, fitted),
    )


def _by_items(columns: Sequence[Column], keys: Sequence[str], seed: int) -> Iterator[Floats]:
    """Yield the measure of every model: of all items as they are, then of drawn ones, in chunks."""
    n = len(keys)
    yield of_resampled(columns, keys, np.ones((1, n)))
    random = np.random.default_rng(seed)
    left = _RESAMPLES
    while left:
        count = min(left, max(1, _AT_ONCE // n))
        weights = random.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float64)
        yield of_resampled(columns, keys, weights)
        left -= count


def _by_intervals(points: Sequence[Point], seed: int) -> Floats:
    random = np.random.default_rng(seed)
    centres = np.asarray([point.value.estimate for point in points], np.float64)
    spreads = np.asarray([_spread(point.value) for point in points], np.float64)
    return random.normal(centres, spreads, size=(_RESAMPLES, len(points)))


def _spread(interval: Interval) -> float:
    """Return the standard error that a 95% interval stands for."""
    return max(0.0, interval.high - interval.low) / (2 * Z)


def _lines(sizes: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return intercept and slope of the least-squares line of every row."""
    centred = sizes - sizes.mean()
    slopes: Floats = (values @ centred) / float(centred @ centred)
    intercepts: Floats = values.mean(axis=1) - slopes * sizes.mean()
    return intercepts, slopes


def _worst_miss(sizes: Floats, values: Floats) -> float:
    """Return the largest distance of a size from the line through all others."""
    misses = []
    for left_out in range(len(sizes)):
        others = np.arange(len(sizes)) != left_out
        if len(set(sizes[others].tolist())) < LEAST_SIZES - 1:
            continue
        intercept, slope = _lines(sizes[others], values[None, others])
        misses.append(abs(float(values[left_out] - intercept[0] - slope[0] * sizes[left_out])))
    return max(misses, default=math.nan)
