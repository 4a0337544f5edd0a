"""How a training run went, from its evaluations: the best one, whether to stop, and plain words.

watch = Watch([(0, 0.693), (40, 0.61), (80, 0.65)])
watch.best.step, watch.since_best        # 40, 1
verdict(read_log(path))                  # "Held-out loss was lowest at step 40 …"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

# In nats of the mean loss over held-out pairs; log 2 = 0.693 is where DPO begins. Below the first,
# two evaluations say the same; from the second on, the weights got worse at telling pairs apart.
_LEVEL, _WORSE = 0.005, 0.02
# Share by which the chosen answers' log-probability may fall. Some fall is usual in DPO, which only
# asks for a distance (Pal et al. 2024, arXiv 2402.13228).
_FALLEN = 0.2


class Point(NamedTuple):
    """One evaluation."""

    step: int
    """Weight updates before it."""
    loss: float
    """Mean loss over the held-out pairs."""


@dataclass(frozen=True)
class Watch:
    """The evaluations of one run so far, oldest first; that before the first step is one."""

    points: Sequence[tuple[int, float]]

    @property
    def best(self) -> Point | None:
        """The evaluation of trained weights with the lowest loss; the earliest of equals."""
        trained = [Point(*point) for point in self.points if point[0] > 0]
        return min(trained, key=lambda point: point.loss, default=None)

    @property
    def since_best(self) -> int:
        """How many evaluations came after the best one."""
        best = self.best
        return sum(step > best.step for step, _ in self.points) if best else 0

    def is_over(self, patience: int | None) -> bool:
        """Whether `patience` evaluations in a row have found nothing better."""
        return patience is not None and self.since_best >= patience


def verdict(entries: Sequence[Mapping[str, Any]]) -> str:
    """Say in a sentence or two how training went, from the lines of its log."""
    found = [e for e in entries if e.get("event") == "eval" and e.get("loss") is not None]
    watch = Watch([(int(e["step"]), float(e["loss"])) for e in found])
    best = watch.best
    if len(found) < 2 or best is None:
        return "Nothing was measured on held-out pairs, so nothing is known of how it went."
    first, last = Point(*watch.points[0]), Point(*watch.points[-1])
    return f"{_loss(first, best, last)}{_before_last(watch)}{_chosen(found[0], found[-1])}"


def _loss(first: Point, best: Point, last: Point) -> str:
    if best.loss > first.loss - _LEVEL:
        return (
            f"Held-out loss never fell ({first.loss:.3f} before, {best.loss:.3f} at best): the "
            "model did not learn what sets chosen answers apart. Look at the pairs, or try a "
            "higher learning_rate."
        )
    if last.loss > best.loss + _WORSE:
        return (
            f"Held-out loss was lowest at step {best.step} ({best.loss:.3f}) and has risen to "
            f"{last.loss:.3f} since: it learns the training pairs by heart. Train for fewer "
            "epochs, or set select to best."
        )
    return f"Held-out loss fell from {first.loss:.3f} to {last.loss:.3f}."


def _before_last(watch: Watch) -> str:
    """Say whether it was still falling; needs two evaluations of trained weights."""
    trained = [Point(*point) for point in watch.points if point[0] > 0]
    if len(trained) < 2 or watch.since_best:
        return ""
    if trained[-2].loss - trained[-1].loss > _LEVEL:
        return " It was still falling: more epochs may help."
    return " It has levelled off: more of the same would change little."


def _chosen(first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    before, after = first.get("logp_chosen"), last.get("logp_chosen")
    if before is None or after is None or after > before * (1 + _FALLEN):
        return ""
    return (
        f" Chosen answers became much less likely too (log-probability {before:.0f} to "
        f"{after:.0f}): the margin comes from pushing rejected ones further down. A larger beta or "
        "a smaller learning_rate keeps the model closer."
    )
