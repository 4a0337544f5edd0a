"""Sizes of effects, corrections for many tests, and what a sample could find at all.

All intervals are 95%.

    cohen_d(before, after)                       # of two independent samples
    paired_d(before, after, seed=0)              # of one sample measured twice
    holm({"safety.safe_rate": 0.004, "contemplative.overall": 0.03})
    detectable_share(n=60)                       # before a run: the smallest change of a share
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ccai_core.evaluation.results import Interval
from ccai_core.evaluation.statistics import LEVEL, RESAMPLES, Floats, Z, differences

# Four of five such evaluations find an effect of the size that is called detectable.
POWER = 0.8
_Z_POWER = 0.8416212335729143


def cohen_d(before: Sequence[float], after: Sequence[float]) -> Interval | None:
    """Return (mean after - mean before) / pooled standard deviation, of independent samples.

    The interval inverts the noncentral t distribution (Cumming and Finch 2001). None where nothing
    varies: the size of a difference between constants is not defined.
    """
    a, b = np.asarray(before, np.float64), np.asarray(after, np.float64)
    n, m = len(a), len(b)
    if n < 2 or m < 2:
        return None
    pooled = math.sqrt(((n - 1) * a.var(ddof=1) + (m - 1) * b.var(ddof=1)) / (n + m - 2))
    if not pooled:
        return None
    return d_from_statistics(float(b.mean() - a.mean()), pooled, n, m)


def d_from_statistics(difference: float, pooled: float, n: int, m: int) -> Interval:
    """Return Cohen's d with its interval from a published table: means, pooled sd, sizes."""
    scale = math.sqrt(1 / n + 1 / m)
    low, high = _noncentrality(difference / pooled / scale, n + m - 2)
    return Interval(estimate=difference / pooled, low=low * scale, high=high * scale)


def _noncentrality(t: float, freedom: int) -> tuple[float, float]:
    """Return the noncentralities of which `t` is the 97.5% and the 2.5% quantile."""
    from scipy.optimize import brentq
    from scipy.stats import nct

    def end(quantile: float) -> float:
        def miss(noncentrality: float) -> float:
            below = float(nct.cdf(t, freedom, noncentrality))
            if math.isnan(below):
                # scipy gives up far out in the tails, where it is 1 or 0.
                below = float(noncentrality < t)
            return below - quantile

        # cdf falls with the noncentrality; 12 standard errors and more hold any 95% interval.
        reach = 12.0 + abs(t)
        return float(brentq(miss, t - reach, t + reach, xtol=1e-9))

    tail = (1 - LEVEL) / 2
    return end(1 - tail), end(tail)


def paired_d(before: Sequence[float], after: Sequence[float], seed: int) -> Interval | None:
    """Return the mean difference by its own standard deviation, with a BCa bootstrap interval.

    (Efron 1987, by scipy.) None where all differences are equal.
    """
    from scipy.stats import bootstrap

    changes = differences(before, after)
    if len(changes) < 2 or not changes.std(ddof=1):
        return None

    def size(sample: Floats, axis: int = -1) -> Floats:
        spread: Floats = sample.std(axis=axis, ddof=1)
        # A resample of equal values has no size; it is taken for none.
        means: Floats = sample.mean(axis=axis)
        return np.divide(means, spread, out=np.zeros_like(spread), where=spread > 0)

    found = bootstrap(
        (changes,), size, n_resamples=RESAMPLES, confidence_level=LEVEL, method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    estimate = float(changes.mean() / changes.std(ddof=1))
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return None
    return Interval(
        estimate=estimate,
        low=min(float(found.low), estimate),
        high=max(float(found.high), estimate),
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for their number (Holm 1979): none is ever below what it was."""
    ordered = sorted(p_values, key=lambda name: p_values[name])
    corrected: dict[str, float] = {}
    most = 0.0
    for rank, name in enumerate(ordered):
        most = max(most, min(1.0, (len(ordered) - rank) * p_values[name]))
        corrected[name] = most
    return {name: corrected[name] for name in p_values}


def detectable_mean(n: int, sd: float) -> float:
    """Return the mean paired difference that n items find in 4 of 5 evaluations.

    Args:
        n: items.
        sd: standard deviation of the items' differences.
    """
    return (Z + _Z_POWER) * sd / math.sqrt(n)


def detectable_share(n: int, changing: float = 0.2) -> float:
    """Return the change of a share that McNemar's test finds in 4 of 5 evaluations of n items.

    Args:
        n: items.
        changing: share of items that come out differently for the two models (not known before a
            run; 0.2 is what the examples of docs/evaluation.md take).
    """
    # Miettinen 1968, solved for the difference: the null has variance `changing`, the alternative
    # `changing - d**2`.
    low, high = 0.0, changing
    for _ in range(60):
        d = (low + high) / 2
        needed = (Z * math.sqrt(changing) + _Z_POWER * math.sqrt(changing - d * d)) / math.sqrt(n)
        low, high = (d, high) if d < needed else (low, d)
    return high
