"""Planted models: what the benchmark draws from the items of an evaluation, and how it counts.

The scores here are drawn, not a model's; they go through the comparison that suites use.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ccai_core.evaluation.results import ItemValues

FILE = Path(__file__).parents[2] / "benchmarks" / "evaluation" / "planted_models.py"
ITEMS = 60


@pytest.fixture(scope="module")
def planted() -> ModuleType:
    spec = importlib.util.spec_from_file_location("planted_models", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shares(shift: float) -> ItemValues:
    """Verdicts of two models on the same items, one of them better by `shift` in log-odds."""
    rng = np.random.default_rng(3)
    odds = rng.normal(size=ITEMS) + 0.7 * rng.normal(size=(2, ITEMS)) + [[0.0], [shift]]
    before, after = (odds > 0).astype(float).tolist()
    names = tuple(map(str, range(ITEMS)))
    return ItemValues(kind="share", names=names, baseline=tuple(before), trained=tuple(after))


@pytest.mark.parametrize(("case", "shift"), [("better", 1.5), ("worse", -1.5)])
def test_a_planted_difference_is_found_on_its_side(
    planted: ModuleType, case: str, shift: float
) -> None:
    items = shares(shift)
    assert planted.whole(items).p_value < 0.01
    five, one = planted.below(items, case, 50)
    assert five >= one >= 45
    other = {"better": "worse", "worse": "better"}[case]
    assert planted.below(items, other, 20) == (0, 0)


def test_equal_models_are_not_significant_in_94_of_100(planted: ModuleType) -> None:
    assert planted.below(shares(0.0), "equal", 100)[0] <= 6
    # By coin, even the items of a better model say nothing of whose they are.
    assert planted.below(shares(1.5), "equal", 100)[0] <= 6
