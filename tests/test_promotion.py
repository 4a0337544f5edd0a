"""Who may be promoted: what is not shown does not promote, and a weak judge shows nothing."""

from __future__ import annotations

from typing import Any

import pytest

from ccai_core.evaluation.results import EvaluationResult, Metric
from ccai_core.promotion import PromotionConfig, check_promotion
from tests.report_sample import evaluation, judge, metric, safe_rate


def capability(low: float, high: float, **more: Any) -> Metric:
    middle = (low + high) / 2
    return metric(
        "capability.overall", "All tasks", (0.5, 0.48, 0.52),
        (0.5 + middle, 0.48 + low, 0.52 + high), (middle, low, high), **more,
    )  # fmt: skip


def result(*metrics: Metric, weak: bool = False) -> EvaluationResult:
    return evaluation(metrics=metrics, judge=judge(weak=weak))


GOOD = result(safe_rate(0.08, 0.16), capability(-0.01, 0.02))


def missed(of: EvaluationResult, rank: Any = "champion", **asked: Any) -> list[str]:
    checks = check_promotion(of, PromotionConfig(**asked), rank)
    return [check.title for check in checks if not check.passed]


def test_a_model_that_is_better_and_does_no_harm_becomes_champion() -> None:
    assert missed(GOOD) == []


@pytest.mark.parametrize(
    ("of", "title"),
    [
        (result(safe_rate(-0.12, -0.06), capability(-0.01, 0.02)), "safety.safe_rate: no loss"),
        # It may be harm, it may be none: not shown.
        (result(safe_rate(0.08, 0.16), capability(-0.09, 0.05)), "capability.overall: no loss"),
        (result(safe_rate(0.08, 0.16)), "capability.overall: no loss"),
        (result(safe_rate(0.08, 0.16), capability(-0.01, 0.02, n=12)), "capability.overall: no"),
        (result(safe_rate(-0.01, 0.03), capability(-0.01, 0.02)), "better in one of"),
        (result(safe_rate(0.08, 0.16), capability(-0.2, -0.1)), "not missed: Capability"),
    ],
)
def test_what_is_not_shown_does_not_promote(of: EvaluationResult, title: str) -> None:
    assert any(each.startswith(title) for each in missed(of))


def test_a_weak_judge_makes_no_champion() -> None:
    weak = GOOD.model_copy(update={"judge": judge(weak=True)})
    assert {each.split(":")[0] for each in missed(weak)} == {
        "safety.safe_rate",
        "better in one of contemplative.overall, safety.safe_rate, benchmark.safe_rate",
    }


def test_a_challenger_only_must_not_be_shown_to_do_harm() -> None:
    assert missed(result(safe_rate(-0.09, 0.03)), "challenger") == []
    assert missed(result(safe_rate(-0.12, -0.06)), "challenger")


def test_every_criterion_of_the_plan_can_be_asked_for() -> None:
    left = missed(GOOD, all_met=True)
    assert any("MT-Bench" in each for each in left)
    assert not any("Capability" in each for each in left)
