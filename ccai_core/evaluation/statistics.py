"""Intervals and tests for a few dozen paired items: what a small evaluation can and cannot say.

All intervals are 95%, all tests two-sided. Resampling is seeded: same data, same digits.

    share_interval(19, 24)                       # Interval(estimate=0.79, low=0.58, high=0.93)
    mean_difference(baseline_scores, trained_scores, seed=0)
    mcnemar_exact(baseline_right, trained_right)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ccai_core.evaluation.results import Interval

Floats = NDArray[np.float64]

LEAST_ITEMS = 2
RESAMPLES = 9_999
LEVEL = 0.95
Z = 1.959963984540054
# The smallest number of one-sided changes whose exact McNemar p, 2 * 0.5**k, is below 0.05.
LEAST_CHANGES = 6


def share_interval(hits: int, n: int) -> Interval:
    """Return a share with its exact binomial interval (Clopper and Pearson 1934, by scipy).

    Never narrower than it should be: at 0 of n it reaches up to about 3.7 / n.
    """
    from scipy.stats import binomtest

    exact = binomtest(hits, n).proportion_ci(LEVEL, method="exact")
    return Interval(estimate=hits / n, low=float(exact.low), high=float(exact.high))


def wilson_interval(hits: int, n: int) -> Interval:
    """Return a share with its score interval (Wilson 1927, by scipy).

    Right on average, where the exact one is never too narrow; for small parts of a table.
    """
    from scipy.stats import binomtest

    score = binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return Interval(estimate=hits / n, low=float(score.low), high=float(score.high))


def share_difference(baseline: Sequence[bool], trained: Sequence[bool]) -> Interval:
    """Return the difference of two paired shares (Bonett and Price 2012, adjusted Wald).

    One item is added to either kind of change, so that no change at all in a small sample does not
    claim certainty, as a bootstrap (interval of width 0) would.
    """
    won, lost = _changes(baseline, trained)
    n = len(trained)
    up, down = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    half = Z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    estimate = (won - lost) / n
    return Interval(
        estimate=estimate,
        low=max(-1.0, min(estimate, up - down - half)),
        high=min(1.0, max(estimate, up - down + half)),
    )


def mcnemar_exact(baseline: Sequence[bool], trained: Sequence[bool]) -> float:
    """Return McNemar's exact p: a fair coin for every item that changed; 1 where none did.

    Also the sign test, when the two hold 'trained is better' and 'baseline is better'.
    """
    from scipy.stats import binomtest

    won, lost = _changes(baseline, trained)
    return float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0


def mean_interval(values: Sequence[float], seed: int) -> Interval:
    """Return a mean with its bootstrap interval (Efron 1979; see `percentiles`).

    Equal values give an interval of width 0.
    """
    data = np.asarray(values, dtype=np.float64)
    means = data[_resamples(len(data), seed)].mean(axis=1)
    return percentiles(float(data.mean()), means, len(data))


def mean_difference(baseline: Sequence[float], trained: Sequence[float], seed: int) -> Interval:
    """Return the mean of the items' differences with its paired bootstrap interval.

    Items are drawn, and each takes its two values along: what items differ in drops out.
    """
    return mean_interval(differences(baseline, trained).tolist(), seed)


def sign_flip(baseline: Sequence[float], trained: Sequence[float], seed: int) -> float:
    """Return the p of Fisher's paired randomisation test on the mean difference.

    Were training without effect, every difference could as well have the other sign. All signs are
    tried when there are at most 2**13 ways, else 9,999 random ones, counted as in Phipson and Smyth
    2010 (never 0). 1 when nothing differs.
    """
    changes = differences(baseline, trained)
    if not changes.any():
        return 1.0
    n = len(changes)
    if n <= 13:
        signs = 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(RESAMPLES, n))
    observed = abs(changes.sum())
    # Sums of the same numbers in another order may differ in the last bit.
    extreme = np.abs(signs @ changes) >= observed * (1 - 1e-12)
    if n <= 13:
        return float(extreme.mean())
    return float((extreme.sum() + 1) / (RESAMPLES + 1))


def perplexity_interval(nats: Sequence[float], tokens: Sequence[int], seed: int) -> Interval:
    """Return exp(-sum of log p / tokens) with its bootstrap interval, drawing whole paragraphs.

    Tokens of one paragraph are no independent evidence, so paragraphs are the clusters.
    """
    logprob, count = np.asarray(nats, np.float64), np.asarray(tokens, np.float64)
    drawn = _resamples(len(count), seed)
    return percentiles(
        float(_perplexity(logprob.sum(), count.sum())),
        _perplexity(logprob[drawn].sum(axis=1), count[drawn].sum(axis=1)),
        len(count),
    )


def perplexity_difference(
    baseline: Sequence[float], trained: Sequence[float], tokens: Sequence[int], seed: int
) -> Interval:
    """Return trained minus baseline perplexity; each drawn paragraph counts for both models."""
    before, after = np.asarray(baseline, np.float64), np.asarray(trained, np.float64)
    count = np.asarray(tokens, np.float64)
    drawn = _resamples(len(count), seed)
    total = count[drawn].sum(axis=1)
    return percentiles(
        float(_perplexity(after.sum(), count.sum()) - _perplexity(before.sum(), count.sum())),
        _perplexity(after[drawn].sum(axis=1), total)
        - _perplexity(before[drawn].sum(axis=1), total),
        len(count),
    )


def detectable(baseline: Sequence[float], trained: Sequence[float]) -> float:
    """Return the mean difference that n such items would find in 4 of 5 evaluations.

    (1.96 + 0.84) * sd of the differences / sqrt(n), the usual normal approximation.
    """
    changes = differences(baseline, trained)
    return float((Z + 0.8416) * changes.std(ddof=1) / math.sqrt(len(changes)))


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return Spearman's rho; None where one side does not vary."""
    from scipy.stats import spearmanr

    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return float(spearmanr(a, b).statistic)


def _changes(baseline: Sequence[bool], trained: Sequence[bool]) -> tuple[int, int]:
    pairs = list(zip(baseline, trained, strict=True))
    return sum(t and not b for b, t in pairs), sum(b and not t for b, t in pairs)


def differences(baseline: Sequence[float], trained: Sequence[float]) -> Floats:
    """Return trained minus baseline, item by item."""
    pairs = list(zip(baseline, trained, strict=True))
    return np.asarray([t - b for b, t in pairs], dtype=np.float64)


def _resamples(n: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, n, size=(RESAMPLES, n))


def _perplexity(nats: Floats, tokens: Floats) -> Floats:
    return np.exp(-nats / tokens)


def percentiles(estimate: float, resampled: Floats, n: int) -> Interval:
    """Return the expanded percentile interval of Hesterberg 2015 for `n` resampled items.

    Plain percentiles of a few items are too narrow (at n = 6 they cover 86%): the levels are
    moved out to where Student's t and the n - 1 in the variance would put them.
    """
    from scipy.stats import norm, t

    reach = math.sqrt(n / (n - 1)) * t.ppf((1 + LEVEL) / 2, n - 1)
    tail = float(norm.cdf(-reach))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    # Rounding in sums may push an end of a very narrow interval past the estimate.
    return Interval(
        estimate=estimate, low=min(float(low), estimate), high=max(float(high), estimate)
    )
