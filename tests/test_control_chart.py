"""The chart against Quesenberry's definition, and its promise: few false alarms, early on too."""

import numpy as np
import pytest
from scipy.stats import norm, t

from ccai_core.control_chart import LEAST_BEFORE, judge, limit_of

BEFORE = [0.10, 0.12, 0.09, 0.11, 0.10, 0.12, 0.11]


@pytest.mark.parametrize("value", [0.02, 0.08, 0.11, 0.15])
def test_q_is_what_the_paper_says(value):
    r = len(BEFORE) + 1
    statistic = np.sqrt((r - 1) / r) * (value - np.mean(BEFORE)) / np.std(BEFORE, ddof=1)
    wanted = norm.ppf(t.cdf(statistic, r - 2))
    assert judge(BEFORE, value, finest=0).q == pytest.approx(wanted, abs=1e-9)


def test_the_drawn_limits_are_where_alarms_begin():
    point = judge(BEFORE, 0.1, finest=0)
    assert not judge(BEFORE, point.low + 1e-6, finest=0).is_low
    assert judge(BEFORE, point.low - 1e-6, finest=0).is_low
    assert judge(BEFORE, point.high + 1e-6, finest=0).is_high
    assert not judge(BEFORE, point.high - 1e-6, finest=0).is_high


def test_with_few_values_nothing_is_judged():
    early = judge(BEFORE[: LEAST_BEFORE - 1], -9.0, finest=0)
    assert (early.q, early.is_low) == (None, False)
    assert judge(BEFORE[:LEAST_BEFORE], -9.0, finest=0).is_low


def test_a_number_that_never_moved_does_not_cry_at_one_item():
    assert not judge([0.5] * 20, 0.5 - 1 / 60, finest=1 / 60).is_low
    assert judge([0.5] * 20, 0.5 - 6 / 60, finest=1 / 60).is_low


def test_a_value_very_far_out_still_has_a_place():
    assert judge([0.5] * 20, -1e6, finest=1e-9).q < -5


def test_false_alarms_are_as_rare_from_the_first_judged_night_as_later():
    draws = np.random.default_rng(0).normal(size=(3000, 12))
    early = sum(judge(row[:6], row[6], finest=0).is_low for row in draws)
    later = sum(judge(row[:11], row[11], finest=0).is_low for row in draws)
    # 3000 / 741 is 4; limits that took seven nights' spread for known would give about 60.
    assert early <= 12
    assert later <= 12


def test_charts_that_are_read_together_share_the_false_alarms():
    assert limit_of(1) == pytest.approx(3)
    assert norm.sf(limit_of(3)) == pytest.approx(norm.sf(3) / 3)
    value = judge(BEFORE, 0.1, finest=0).low - 1e-6
    assert not judge(BEFORE, value, finest=0, limit=limit_of(3)).is_low
