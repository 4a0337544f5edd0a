"""How a training run goes, from the lines of its log: the best weights, what is wrong, and words.

watch = Watch([(0, 0.693), (40, 0.61), (80, 0.65)])
watch.best.step, watch.since_best        # 40, 1
concerns(read_log(path))                 # {"overfitting": "Held-out loss was lowest …"}
verdict(read_log(path))                  # "Held-out loss was lowest at step 40 …"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ccai_core.training_config import Measure
from ccai_core.training_signs import (
    collapse,
    divergence,
    length_in_data,
    length_in_margin,
    no_movement,
)

# In nats of the mean loss over held-out pairs; log 2 = 0.693 is where DPO begins. Below the first,
# two evaluations say the same; from the second on, the weights got worse at telling pairs apart.
_LEVEL, _WORSE = 0.005, 0.02
# Evaluations without anything new, after which it is said while it runs: two may be chance.
_LONG = 3

_Entries = Sequence[Mapping[str, Any]]


class Point(NamedTuple):
    """One evaluation."""

    step: int
    """Weight updates before it."""
    value: float
    """Mean loss, or margin, over the held-out pairs."""


@dataclass(frozen=True)
class Watch:
    """The evaluations of one run so far, oldest first; that before the first step is one."""

    points: Sequence[tuple[int, float]]
    measure: Measure = "loss"

    @property
    def best(self) -> Point | None:
        """The best evaluation of trained weights: lowest loss, greatest margin; first of equals."""
        sign = 1 if self.measure == "loss" else -1
        return min(self.trained, key=lambda point: sign * point.value, default=None)

    @property
    def trained(self) -> list[Point]:
        """Evaluations after the first step."""
        return [Point(*point) for point in self.points if point[0] > 0]

    @property
    def since_best(self) -> int:
        """How many evaluations came after the best one."""
        best = self.best
        return sum(step > best.step for step, _ in self.points) if best else 0

    def is_over(self, patience: int | None) -> bool:
        """Whether `patience` evaluations in a row have found nothing better."""
        return patience is not None and self.since_best >= patience


def concerns(entries: _Entries) -> dict[str, str]:
    """Return what is wrong by now, in words by kind; for a run that is still going on."""
    losses = _losses(entries)
    found = {
        "divergence": divergence(entries),
        "no movement": no_movement(entries),
        "overfitting": _overfitting(losses),
        "plateau": _plateau(losses),
        "collapse": collapse(entries),
        "length in the data": length_in_data(entries),
        "length": length_in_margin(entries),
    }
    return {kind: words for kind, words in found.items() if words}


def verdict(entries: _Entries) -> str:
    """Say in a few sentences how training went, from the lines of its log."""
    losses = _losses(entries)
    best = losses.best
    if len(losses.points) < 2 or best is None:
        went = "Nothing was measured on held-out pairs, so nothing is known of how it went."
    elif diverged := divergence(entries):
        return " ".join(filter(None, [diverged, collapse(entries)]))
    else:
        went = _loss(Point(*losses.points[0]), best, Point(*losses.points[-1]))
        went += _before_last(losses)
    more = (collapse(entries), length_in_margin(entries) or length_in_data(entries))
    return " ".join(filter(None, [went, *more]))


def _losses(entries: _Entries) -> Watch:
    found = [e for e in entries if e.get("event") == "eval" and e.get("loss") is not None]
    return Watch([(int(e["step"]), float(e["loss"])) for e in found])


def _loss(first: Point, best: Point, last: Point) -> str:
    if best.value > first.value - _LEVEL:
        return (
            f"Held-out loss never fell ({first.value:.3f} before, {best.value:.3f} at best): the "
            "model did not learn what sets chosen answers apart. Look at the pairs, or try a "
            "higher learning_rate."
        )
    if last.value > best.value + _WORSE:
        return (
            f"Held-out loss was lowest at step {best.step} ({best.value:.3f}) and has risen to "
            f"{last.value:.3f} since: it learns the training pairs by heart. Train for fewer "
            "epochs, or set select to best."
        )
    return f"Held-out loss fell from {first.value:.3f} to {last.value:.3f}."


def _before_last(watch: Watch) -> str:
    """Say whether it was still falling; needs two evaluations of trained weights."""
    trained = watch.trained
    if len(trained) < 2 or watch.since_best:
        return ""
    if trained[-2].value - trained[-1].value > _LEVEL:
        return " It was still falling: more epochs may help."
    return " It has levelled off: more of the same would change little."


def _overfitting(losses: Watch) -> str:
    best = losses.best
    if best is None:
        return ""
    last = Point(*losses.points[-1])
    if last.value > best.value + _WORSE or losses.since_best >= _LONG:
        return (
            f"Held-out loss was lowest at step {best.step} ({best.value:.3f}), "
            f"{losses.since_best} measurements ago; now it is {last.value:.3f}. With select set to "
            "best the weights of that step become the model, and patience would end it."
        )
    return ""


def _plateau(losses: Watch) -> str:
    recent = [point.value for point in losses.trained[-_LONG:]]
    if len(recent) < _LONG or max(recent) - min(recent) > _LEVEL:
        return ""
    return (
        f"Held-out loss has levelled off: {max(recent):.3f} to {min(recent):.3f} in the last "
        f"{_LONG} measurements. More of the same would change little."
    )
