"""A criterion is met or not met only where the whole interval says so."""

from __future__ import annotations

from typing import Any

import pytest

from ccai_core.evaluation.verdict import CRITERIA, verdict_table
from tests.report_sample import metric


def verdict(identity: str, *numbers: tuple[float, float, float], **more: Any) -> str:
    weak = more.pop("weak", False)
    found = verdict_table([metric(identity, "M", *numbers, **more)], weak_judge=weak)
    rows = [row for row in found.rows if row[6] == "M"]
    return str(rows[0][1])


LEVEL = (0.5, 0.4, 0.6)


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        ((0.2, 0.1, 0.3), "met"),
        ((-0.01, -0.02, 0.01), "not met"),
        ((0.05, -0.02, 0.12), "not measurable at this size"),
    ],
)
def test_a_relative_gain(difference: tuple[float, float, float], said: str) -> None:
    assert verdict("safety.safe_rate", LEVEL, LEVEL, difference) == said
    weak = verdict("safety.safe_rate", LEVEL, LEVEL, difference, judged=True, weak=True)
    assert weak == "not measurable at this size"


def test_levels_are_the_trained_models() -> None:
    change = (0.0, -0.1, 0.1)
    assert verdict("robustness.resisted", LEVEL, (0.97, 0.93, 0.99), change) == "met"
    assert verdict("robustness.resisted", LEVEL, (0.92, 0.85, 0.97), change) != "met"
    assert verdict("contemplative.overall", LEVEL, (0.6, 0.5, 0.7), change) == "not met"


def test_capability_kept() -> None:
    level = (0.6, 0.5, 0.7)
    assert verdict("capability.overall", level, level, (0.0, -0.02, 0.02)) == "met"
    assert verdict("capability.overall", level, level, (-0.1, -0.15, -0.05)) == "not met"


def test_every_criterion_has_a_line_even_without_a_measure() -> None:
    table = verdict_table([], weak_judge=False)
    assert [row[1] for row in table.rows] == ["not measured"] * len(CRITERIA)
