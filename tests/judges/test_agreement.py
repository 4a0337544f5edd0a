"""Alpha against the krippendorff package and a published example; majorities that may be tied."""

from __future__ import annotations

import krippendorff
import numpy as np
import pytest

from ccai_core.judges.agreement import (
    Level,
    krippendorff_alpha,
    krippendorff_interval,
    majority,
)

LEVELS: list[Level] = ["nominal", "ordinal", "interval"]


@pytest.mark.parametrize("level", LEVELS)
def test_alpha_is_the_packages(level: Level) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        ratings = rng.integers(1, 6, size=(3, 15)).astype(float)
        ratings[rng.random(ratings.shape) < 0.2] = np.nan
        ours = krippendorff_alpha(
            [[None if np.isnan(v) else float(v) for v in row] for row in ratings], level
        )
        theirs = krippendorff.alpha(reliability_data=ratings, level_of_measurement=level)
        assert ours == pytest.approx(float(theirs), abs=1e-9)


def test_agreement_chance_and_nothing_to_compare() -> None:
    assert krippendorff_alpha([[1, 2, 3], [1, 2, 3]], "nominal") == 1
    assert krippendorff_alpha([[1, 1], [1, 1]], "nominal") is None
    assert krippendorff_alpha([[1, None], [None, 2]], "nominal") is None
    assert krippendorff_alpha([], "nominal") is None


def test_interval_holds_the_estimate_and_narrows() -> None:
    rng = np.random.default_rng(1)

    def widths(items: int) -> float:
        truth = rng.integers(0, 2, items)
        rows = [[float(t ^ (rng.random() < 0.15)) for t in truth] for _ in range(3)]
        found = krippendorff_interval(rows, "nominal", seed=0)
        assert found is not None
        assert found.low < found.estimate < found.high
        return found.high - found.low

    assert widths(200) < 0.6 * widths(40)


def test_majority() -> None:
    assert majority([True, True, False]) is True
    assert majority([False, None, None]) is False
    assert majority([True, False, None]) is None
    assert majority([]) is None
