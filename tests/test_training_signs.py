"""Signs of a run that goes wrong, on curves made for it: each is said, and not without reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ccai_core.training_watch import concerns, verdict

Log = list[dict[str, Any]]


def steps(losses: Sequence[float], margin: float = 0.5, total: int | None = None) -> Log:
    return [
        {"event": "step", "step": n, "total_steps": total or len(losses), "loss": loss,
         "margin": margin, "reward_chosen": 0.2}
        for n, loss in enumerate(losses, start=1)
    ]  # fmt: skip


def evals(*losses: float, **last: float) -> Log:
    log: Log = [
        {"event": "eval", "step": 10 * n, "total_steps": 100, "loss": loss}
        for n, loss in enumerate(losses)
    ]
    log[-1].update(last)
    return log


def start(chosen: float, rejected: float) -> Log:
    return [{"event": "start", "step": 0, "chosen_tokens": chosen, "rejected_tokens": rejected}]


def test_a_good_run_raises_no_concern() -> None:
    log = start(100, 90) + steps([0.69 - 0.01 * n for n in range(30)])
    log += evals(0.693, 0.6, 0.5, 0.4, margin=0.8, reward_chosen=0.3, logp_chosen=-100.0)
    assert concerns(log) == {}


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        (evals(0.693, 0.6, 0.9), "divergence"),
        (steps([0.69] * 10 + [1.2] * 10), "divergence"),
        (steps([0.693] * 60, margin=0.001, total=100), "no movement"),
        (evals(0.693, 0.55, 0.60), "overfitting"),
        (evals(0.693, 0.55, 0.552, 0.553, 0.554), "overfitting"),
        (evals(0.693, 0.6, 0.552, 0.551, 0.550), "plateau"),
        (evals(0.693, 0.4, margin=0.5, reward_chosen=-0.8), "collapse"),
        (start(140, 100), "length in the data"),
        (start(100, 140), "length in the data"),
        # Every token of both gained the same 0.01.
        (start(120, 100) + evals(0.693, 0.6, margin=0.2, reward_chosen=1.2), "length"),
    ],
)
def test_what_goes_wrong_is_said(log: Log, kind: str) -> None:
    assert kind in concerns(log)


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        (evals(0.693, 0.75), "divergence"),
        (steps([0.69] * 10 + [0.8] * 10), "divergence"),
        (steps([0.69] * 5 + [1.5] * 5), "divergence"),
        (steps([0.693] * 40, margin=0.001, total=100), "no movement"),
        (steps([0.5] * 60, margin=0.4, total=100), "no movement"),
        (evals(0.693, 0.55, 0.56), "overfitting"),
        (evals(0.693, 0.6, 0.55, 0.5), "plateau"),
        # Both lose, and chosen ones less than the margin gains: usual in DPO.
        (evals(0.693, 0.4, margin=0.5, reward_chosen=-0.3), "collapse"),
        (start(110, 100), "length in the data"),
        (start(120, 100) + evals(0.693, 0.6, margin=0.6, reward_chosen=0.5), "length"),
        (evals(0.693, 0.6, margin=0.2, reward_chosen=1.2), "length"),
    ],
)
def test_what_is_usual_is_not_said(log: Log, kind: str) -> None:
    assert kind not in concerns(log)


def test_a_number_that_is_missing_is_no_sign() -> None:
    broken = [{"event": "step", "step": 1, "total_steps": 1, "loss": None, "margin": None}]
    assert concerns(broken * 20) == {}


def test_the_verdict_has_what_is_wrong_too() -> None:
    assert "training diverges" in verdict(evals(0.693, 0.6, 0.9))
    said = verdict(start(140, 100) + evals(0.693, 0.5, margin=0.9, reward_chosen=0.4))
    assert said.startswith("Held-out loss fell")
    assert "40% longer" in said
    assert "much less likely" in verdict(evals(0.693, 0.4, margin=0.5, reward_chosen=-0.8))
