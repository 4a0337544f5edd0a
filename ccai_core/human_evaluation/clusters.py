"""Intervals for judgements that come in clusters twice: by who judged, and by what was judged.

Reviewers and prompts are both drawn anew, and a judgement counts as often as its reviewer times its
prompt was drawn (the pigeonhole bootstrap, Owen 2007). Neither ten judgements of one person nor ten
of one prompt then pass for ten independent ones. Seeded: same data, same digits.

    values = Clustered(reviewers=("01", "02"), prompts=("p1", "p1"), values=(1.0, 0.5))
    mean_of(values, Draws(values, seed=0), span=(0, 1))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccai_core.evaluation.results import Interval

RESAMPLES = 4_000
_TAILS = (0.025, 0.975)


class Clustered(NamedTuple):
    """Judgements with who made them and of what."""

    reviewers: tuple[str, ...]
    prompts: tuple[str, ...]
    values: tuple[float, ...]


class Draws:
    """How often each reviewer and each prompt was drawn, in every resample."""

    def __init__(self, reviewers: Sequence[str], prompts: Sequence[str], seed: int) -> None:
        """Draw once; what is compared with each other shares its draws."""
        rng = np.random.default_rng(seed)
        self.reviewers, self.prompts = sorted(set(reviewers)), sorted(set(prompts))
        self._by_reviewer = _counts(rng, len(self.reviewers))
        self._by_prompt = _counts(rng, len(self.prompts))

    def means(self, data: Clustered) -> NDArray[np.float64]:
        """Return the mean of the data in every resample; nan where none of it was drawn."""
        reviewers = [self.reviewers.index(each) for each in data.reviewers]
        prompts = [self.prompts.index(each) for each in data.prompts]
        weights = self._by_reviewer[:, reviewers] * self._by_prompt[:, prompts]
        with np.errstate(invalid="ignore"):
            means: NDArray[np.float64] = weights @ np.asarray(data.values) / weights.sum(axis=1)
        return means


def mean_of(data: Clustered, draws: Draws, span: tuple[float, float]) -> Interval:
    """Return the mean with its interval, within the scale's `span`.

    Where nothing varies a bootstrap would claim certainty; the rule of three is used instead: what
    did not happen in n prompts may be as frequent as 3 / n.
    """
    low, high = span
    estimate = float(np.mean(data.values))
    reach = _rule_of_three(data, high - low)
    interval = _interval(estimate, draws.means(data), reach)
    return interval.model_copy(
        update={"low": max(low, interval.low), "high": min(high, interval.high)}
    )


def difference_of(first: Clustered, second: Clustered, draws: Draws, width: float) -> Interval:
    """Return the first mean minus the second; both from the same draws."""
    estimate = float(np.mean(first.values) - np.mean(second.values))
    reach = max(_rule_of_three(first, width), _rule_of_three(second, width))
    same = len({*first.values}) == len({*second.values}) == 1
    drawn = draws.means(first) - draws.means(second)
    return _interval(estimate, drawn, reach if same else 0.0)


def _interval(estimate: float, drawn: NDArray[np.float64], reach: float) -> Interval:
    low, high = np.nanquantile(drawn, _TAILS)
    return Interval(
        estimate=estimate,
        low=min(float(low), estimate - reach),
        high=max(float(high), estimate + reach),
    )


def _rule_of_three(data: Clustered, width: float) -> float:
    return width * min(1.0, 3 / len(set(data.prompts))) if len(set(data.values)) == 1 else 0.0


def _counts(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    # One alone cannot be drawn otherwise: the interval is then by the other side only.
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return drawn.astype(np.float64)
