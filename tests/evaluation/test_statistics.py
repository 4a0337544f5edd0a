"""Intervals that cover, tests that match hand-worked values, and sane answers for odd data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from ccai_core.evaluation import statistics as st


@pytest.mark.parametrize("truth", [0.02, 0.5, 0.9])
def test_share_interval_covers_the_truth(truth: float) -> None:
    n = 24
    intervals = [st.share_interval(hits, n) for hits in range(n + 1)]
    covered = sum(
        binom.pmf(hits, n, truth)
        for hits, found in enumerate(intervals)
        if found.low <= truth <= found.high
    )
    assert covered >= 0.95


def test_share_interval_known_and_extreme_values() -> None:
    found = st.share_interval(19, 24)
    assert (found.low, found.high) == pytest.approx((0.5785, 0.9287), abs=1e-4)
    none = st.share_interval(0, 24)
    assert none.low == 0
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 24))


def test_share_difference_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(600):
        kinds = rng.choice(4, size=30, p=[0.5, 0.2, 0.1, 0.2])
        before, after = (kinds == 0) | (kinds == 2), (kinds == 0) | (kinds == 1)
        found = st.share_difference(before.tolist(), after.tolist())
        covered += found.low <= 0.1 <= found.high
    assert covered / 600 >= 0.93


def test_share_difference_is_modest_when_nothing_changed() -> None:
    found = st.share_difference([True] * 24, [True] * 24)
    assert found.estimate == 0
    assert found.low == pytest.approx(-found.high)
    assert 0.05 < found.high < 0.2


@pytest.mark.parametrize("n", [2, 5, 60])
def test_share_difference_stays_on_the_scale(n: int) -> None:
    found = st.share_difference([False] * n, [True] * n)
    assert found.low <= found.estimate == 1.0 == found.high


def test_mcnemar_by_hand() -> None:
    before = [True] * 10 + [False] * 10
    after = [True] * 9 + [False] + [True] * 8 + [False] * 2
    # 8 gained, 1 lost: 2 * P(X <= 1 | 9, 1/2) = 2 * (1 + 9) / 512
    assert st.mcnemar_exact(before, after) == pytest.approx(20 / 512)
    assert st.mcnemar_exact(after, before) == pytest.approx(20 / 512)
    assert st.mcnemar_exact(before, before) == 1.0


def test_least_changes_is_where_significance_begins() -> None:
    def p(changes: int) -> float:
        return st.mcnemar_exact([False] * changes, [True] * changes)

    assert p(st.LEAST_CHANGES) < 0.05 <= p(st.LEAST_CHANGES - 1)


def test_mean_difference_is_paired() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=40) * 10
    after = hard + 1 + rng.normal(size=40) * 0.1
    found = st.mean_difference(hard.tolist(), after.tolist(), seed=0)
    assert found.low < 1 + 0.05
    assert found.high - found.low < 0.1
    assert st.sign_flip(hard.tolist(), after.tolist(), seed=0) == pytest.approx(1e-4)


def test_bootstrap_matches_the_normal_approximation() -> None:
    values = np.random.default_rng(2).normal(size=200)
    found = st.mean_interval(values.tolist(), seed=0)
    expected = 2 * 1.96 * values.std() / math.sqrt(200)
    assert found.high - found.low == pytest.approx(expected, rel=0.05)
    assert found == st.mean_interval(values.tolist(), seed=0)


@pytest.mark.parametrize("n", [6, 24])
def test_bootstrap_covers_the_truth_of_few_items(n: int) -> None:
    rng = np.random.default_rng(5)
    found = [st.mean_interval(rng.uniform(size=n).tolist(), seed=i) for i in range(300)]
    covered = sum(interval.low <= 0.5 <= interval.high for interval in found)
    assert covered / 300 >= 0.92


def test_sign_flip_by_hand() -> None:
    # Of 8 sign patterns only +++ and --- reach the observed sum.
    assert st.sign_flip([0.0, 0.0, 0.0], [0.1, 0.2, 0.3], seed=0) == 2 / 8
    assert st.sign_flip([0.3, 0.3], [0.3, 0.3], seed=0) == 1.0


def test_sign_flip_is_fair_where_nothing_differs_on_average() -> None:
    rng = np.random.default_rng(3)
    found = [
        st.sign_flip(rng.normal(size=20).tolist(), rng.normal(size=20).tolist(), seed=i)
        for i in range(100)
    ]
    assert sum(p < 0.05 for p in found) <= 12
    assert 0.35 < float(np.mean(found)) < 0.65


@pytest.mark.parametrize("n", [2, 3, 50])
def test_equal_data_give_no_difference_and_no_nan(n: int) -> None:
    same = [0.4] * n
    found = st.mean_difference(same, same, seed=0)
    assert (found.low, found.estimate, found.high) == (0, 0, 0)
    alone = st.mean_interval(same, seed=0)
    assert (alone.low, alone.high) == pytest.approx((0.4, 0.4))
    assert st.detectable(same, same) == 0
    assert st.rank_correlation(same, list(range(n))) is None


def test_perplexity_pools_tokens_and_draws_paragraphs() -> None:
    nats, tokens = [-10.0, -60.0], [10, 20]
    found = st.perplexity_interval(nats, tokens, seed=0)
    assert found.estimate == pytest.approx(math.exp(70 / 30))
    assert (found.low, found.high) == pytest.approx((math.exp(1), math.exp(3)))


def test_perplexity_difference_is_paired_by_paragraph() -> None:
    rng = np.random.default_rng(4)
    tokens = [100] * 16
    before = (-100 * rng.uniform(2, 4, size=16)).tolist()
    after = [nats - 1.0 for nats in before]
    found = st.perplexity_difference(before, after, tokens, seed=0)
    alone = st.perplexity_interval(before, tokens, seed=0)
    assert 0 < found.low <= found.estimate <= found.high
    assert found.high - found.low < 0.05 * (alone.high - alone.low)
    same = st.perplexity_difference(before, before, tokens, seed=0)
    assert (same.low, same.estimate, same.high) == (0, 0, 0)
