"""A judge's confusion, precision, recall and calibration error on planted labels."""

from __future__ import annotations

import numpy as np
import pytest

from ccai_core.judges.calibration import calibrated


def test_counts_and_shares_by_hand() -> None:
    scores = [0.9, 0.8, 0.4, 0.6, 0.1, None]
    labels = [True, True, True, False, False, True]
    found = calibrated(scores, labels)
    assert (found.true_positive, found.false_negative) == (2, 1)
    assert (found.false_positive, found.true_negative) == (1, 1)
    assert found.unparseable == 1
    assert found.accuracy is not None
    assert found.precision is not None
    assert found.recall is not None
    assert found.accuracy.estimate == 0.6
    assert found.precision.estimate == found.recall.estimate == pytest.approx(2 / 3)
    assert found.separation == pytest.approx(5 / 6)
    gaps = [0.1, 0.2, 0.6, 0.6, 0.1]
    assert found.calibration_error == pytest.approx(sum(gaps) / 5)
    assert found.table("t").rows[0] == ("positive", 2, 1)


def test_a_good_judge_is_strong_and_a_blind_one_weak() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(150) < 0.5).tolist()
    good = [0.9 if t else 0.1 for t in labels]
    assert not calibrated(good, labels).weak
    assert calibrated(good, labels).calibration_error == pytest.approx(0.1)
    assert calibrated(rng.random(150).tolist(), labels).weak
    blind = calibrated([0.6] * 150, labels)
    assert blind.weak
    assert blind.separation == 0.5


def test_always_saying_the_commoner_thing_is_weak() -> None:
    found = calibrated([0.9] * 100, [True] * 90 + [False] * 10)
    assert found.accuracy is not None
    assert found.accuracy.estimate == 0.9
    assert found.weak


def test_nothing_scored_is_weak_and_has_no_numbers() -> None:
    found = calibrated([None, None], [True, False])
    assert found.weak
    assert (found.accuracy, found.precision, found.calibration_error) == (None, None, None)
