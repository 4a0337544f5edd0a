"""The words about a training run: loss that falls, levels off, rises, or never moves."""

from __future__ import annotations

from typing import Any

import pytest

from ccai_core.training_watch import Watch, verdict


def log(*losses: float, chosen: tuple[float, ...] = ()) -> list[dict[str, Any]]:
    """Evaluations every ten steps, and steps between that the verdict does not read."""
    found: list[dict[str, Any]] = []
    for number, loss in enumerate(losses):
        found.append({"event": "step", "step": 10 * number, "loss": 9.9})
        entry = {"event": "eval", "step": 10 * number, "loss": loss}
        found.append(entry | ({"logp_chosen": chosen[number]} if chosen else {}))
    return found


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ((0.693, 0.65, 0.60), "fell from 0.693 to 0.600. It was still falling"),
        ((0.693, 0.60, 0.598), "fell from 0.693 to 0.598. It has levelled off"),
        ((0.693, 0.55, 0.64), "lowest at step 10 (0.550) and has risen to 0.640"),
        ((0.693, 0.71, 0.74), "never fell (0.693 before, 0.710 at best)"),
        ((0.693,), "Nothing was measured on held-out pairs"),
        ((), "Nothing was measured on held-out pairs"),
    ],
)
def test_the_verdict_says_what_the_curve_shows(losses: tuple[float, ...], said: str) -> None:
    assert said in verdict(log(*losses))


def test_a_collapse_of_the_chosen_answers_is_said() -> None:
    assert "much less likely too" in verdict(log(0.69, 0.5, chosen=(-200.0, -260.0)))
    assert "less likely" not in verdict(log(0.69, 0.5, chosen=(-200.0, -210.0)))


def test_it_is_over_after_as_many_evaluations_without_a_better_one() -> None:
    watch = Watch([(0, 0.69), (10, 0.60), (20, 0.61), (30, 0.62)])
    assert watch.best == (10, 0.60)
    assert watch.since_best == 2
    assert watch.is_over(2)
    assert not watch.is_over(3)
    assert not watch.is_over(None)


def test_of_margins_the_greatest_is_best() -> None:
    watch = Watch([(0, 0.9), (10, 0.2), (20, 0.4), (30, 0.3)], measure="margin")
    assert watch.best == (20, 0.4)
    assert watch.since_best == 1


def test_weights_before_training_are_never_the_best_ones() -> None:
    assert Watch([(0, 0.5), (10, 0.6)]).best == (10, 0.6)
    assert Watch([(0, 0.5)]).best is None
