"""Is tonight's number like those before it? A control chart that is right from the first nights on.

A Q chart for single values, mean and spread unknown (C. P. Quesenberry 1991, "SPC Q Charts for
Start-Up Processes and Short or Long Runs", Journal of Quality Technology 23(3), 213-224, case IV).
With X the mean and S the standard deviation of the r - 1 values before x, and G the distribution
function of Student's t with r - 2 degrees of freedom,

    Q = Phi^-1( G( sqrt((r - 1) / r) * (x - X) / S ) )

is standard normal as long as nothing changes, however few values there are: its limits are the -3
and +3 of every Shewhart chart. Charts with limits that were computed from a few nights as if they
were known give several times the false alarms.

A night has several charts. Each gets its part of the 1 in 741 of one chart (Bonferroni), so that a
false alarm in any of them is as rare as on one.

    point = judge([0.10, 0.12, 0.09, 0.11, 0.10, 0.12, 0.11], 0.02, finest=0.01, limit=limit_of(3))
    point.q, point.is_low
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from ccai_core.config import Config

LIMIT = 3.0
"""Shewhart's: one normal value in 741 is below minus this, and one above."""

LEAST_BEFORE = 6
"""With fewer values before it a value is not judged: the t distribution would forgive anything."""


class Point(Config):
    """One value on the chart, seen from those before it."""

    value: float = Field(description="What was measured.")
    before: int = Field(ge=0, description="How many values it is compared with.")
    q: float | None = Field(None, description="Its place on the Q chart; none: not judged yet.")
    limit: float = Field(LIMIT, gt=0, description="How far from 0 that may be.")
    centre: float | None = Field(None, description="Mean of the values before it.")
    low: float | None = Field(None, description="A value below this would be out of control.")
    high: float | None = Field(None, description="A value above this would be out of control.")

    @property
    def is_low(self) -> bool:
        """Whether it is below the chart's lower limit."""
        return self.q is not None and self.q < -self.limit

    @property
    def is_high(self) -> bool:
        """Whether it is above the chart's upper limit."""
        return self.q is not None and self.q > self.limit


def limit_of(charts: int) -> float:
    """Return the limit of each of several charts that are read together."""
    from scipy.stats import norm

    return float(norm.isf(norm.sf(LIMIT) / charts))


def judge(before: Sequence[float], value: float, finest: float, limit: float = LIMIT) -> Point:
    """Return where a value stands among those before it, which are taken to be in control.

    Args:
        before: earlier values, without those that were found out of control.
        value: what is judged.
        finest: the smallest step that the value can make, such as one item of n. The spread is
            taken to be no smaller: a number that never moved would else cry at its first step.
        limit: how far from 0 a value in control may be on the Q chart.
    """
    # scipy takes a second; a flow's command line imports this.
    from scipy.stats import norm, t

    n = len(before)
    if n < LEAST_BEFORE:
        return Point(value=value, before=n, limit=limit)
    values = np.asarray(before, dtype=np.float64)
    centre, spread = float(values.mean()), max(float(values.std(ddof=1)), finest)
    # n = r - 1 values before it: r - 2 = n - 1 degrees of freedom.
    step = spread * math.sqrt((n + 1) / n)
    # By logarithms: a value far out has a Q, not minus infinity.
    q = _normal_quantile(float(t.logcdf(-abs(value - centre) / step, n - 1)))
    reach = step * float(t.isf(norm.sf(limit), n - 1))
    return Point(
        value=value,
        before=n,
        q=q if value < centre else -q,
        limit=limit,
        centre=centre,
        low=centre - reach,
        high=centre + reach,
    )


def _normal_quantile(log_probability: float) -> float:
    from scipy.special import ndtri_exp

    return float(ndtri_exp(log_probability))
