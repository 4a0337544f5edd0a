"""Effect sizes against hand-worked and textbook values, and corrections that only raise p."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ccai_core.evaluation import effects
from ccai_core.evaluation import statistics as st


def test_cohen_d_by_hand() -> None:
    found = effects.cohen_d([1, 2, 3], [2, 3, 4])
    assert found is not None
    assert found.estimate == pytest.approx(1.0)
    assert found.low < 0 < found.high


def test_interval_of_d_is_the_noncentral_t_one() -> None:
    # d = 0.96 in two groups of 20: t = d * sqrt(10); its noncentralities, by hand from nct.
    from scipy.stats import nct

    found = effects.d_from_statistics(0.96, 1.0, 20, 20)
    t = 0.96 * math.sqrt(10)
    assert nct.cdf(t, 38, found.low * math.sqrt(10)) == pytest.approx(0.975)
    assert nct.cdf(t, 38, found.high * math.sqrt(10)) == pytest.approx(0.025)
    assert (found.low, found.high) == pytest.approx((0.30, 1.61), abs=0.01)


def test_very_large_effects_have_an_interval_too() -> None:
    found = effects.d_from_statistics(7.5, 1.0, 50, 50)
    assert 6 < found.low < 7.5 < found.high < 9


def test_every_t_has_an_interval() -> None:
    for d in np.linspace(-3, 3, 61):
        found = effects.d_from_statistics(float(d), 1.0, 50, 50)
        assert found.low < d < found.high


def test_d_of_constants_is_not_defined() -> None:
    assert effects.cohen_d([1, 1], [2, 2]) is None
    assert effects.cohen_d([1], [2, 3]) is None
    assert effects.paired_d([1, 2], [2, 3], seed=0) is None


def test_paired_d_is_larger_than_d_where_items_differ_more_than_models() -> None:
    rng = np.random.default_rng(0)
    items = rng.normal(size=60) * 5
    after = items + 1 + rng.normal(size=60)
    paired = effects.paired_d(items.tolist(), after.tolist(), seed=0)
    unpaired = effects.cohen_d(items.tolist(), after.tolist())
    assert paired is not None
    assert unpaired is not None
    assert unpaired.estimate < 0.4 < 0.6 < paired.low < paired.estimate < paired.high < 1.6


def test_holm_by_hand() -> None:
    found = effects.holm({"a": 0.04, "b": 0.01, "c": 0.03})
    assert found == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})
    assert list(found) == ["a", "b", "c"]
    assert effects.holm({}) == {}
    assert effects.holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_wilson_is_narrower_than_exact() -> None:
    wilson, exact = st.wilson_interval(3, 40), st.share_interval(3, 40)
    assert exact.low < wilson.low < wilson.estimate < wilson.high < exact.high + 0.01
    assert (wilson.low, wilson.high) == pytest.approx((0.0258, 0.1986), abs=1e-4)


def test_detectable_share_is_found_in_four_of_five() -> None:
    n, changing = 200, 0.2
    effect = effects.detectable_share(n, changing)
    rng = np.random.default_rng(0)
    up, down = (changing + effect) / 2, (changing - effect) / 2
    found = 0
    for _ in range(300):
        won, lost, _ = rng.multinomial(n, [up, down, 1 - changing])
        before = [False] * won + [True] * lost
        found += st.mcnemar_exact(before, [not b for b in before]) < 0.05
    # The exact test is a little less powerful than the normal approximation behind the formula.
    assert 0.70 < found / 300 < 0.85


def test_more_items_find_smaller_effects() -> None:
    sizes = [effects.detectable_share(n) for n in (30, 60, 240, 1200)]
    assert sizes == sorted(sizes, reverse=True)
    assert effects.detectable_mean(100, 1.0) == pytest.approx(0.28, abs=0.001)


# Safety scores, 0 to 100, of GPT-4o on the same 100 prompts under seven ways of prompting: mean and
# standard deviation. From the statistics that the paper's authors published
# (aelwood/contemplative_alignment, large_benchmark_results/anova_analysis/statistics, bf59835).
PUBLISHED = {
    "standard": (59.42, 17.04),
    "emptiness": (64.65, 14.46),
    "prior relaxation": (68.86, 15.27),
    "mindfulness": (69.38, 14.83),
    "non-duality": (71.26, 15.67),
    "boundless care": (71.63, 14.64),
    "contemplative alignment": (74.71, 14.86),
}
PROMPTS = 100


def test_the_papers_effect_is_that_of_its_published_table() -> None:
    (before, sd), (after, other) = PUBLISHED["standard"], PUBLISHED["contemplative alignment"]
    pooled = math.sqrt((sd**2 + other**2) / 2)
    found = effects.d_from_statistics(after - before, pooled, PROMPTS, PROMPTS)
    assert round(found.estimate, 2) == 0.96
    assert (found.low, found.high) == pytest.approx((0.66, 1.25), abs=0.01)
    # Theirs, 0.9615, divides the squares by n and not by n - 1; the table is rounded.
    theirs = found.estimate / math.sqrt((PROMPTS - 1) / PROMPTS)
    assert theirs == pytest.approx(0.9615, abs=0.0015)


def test_the_papers_table_was_copied_right() -> None:
    means, sds = np.array(list(PUBLISHED.values())).T
    within = (sds**2).mean()
    # The published F of one-way analysis of variance.
    assert PROMPTS * means.var(ddof=1) / within == pytest.approx(11.0120, abs=0.02)
