"""How far a judge can be trusted, on items whose answer people gave: so that a weak one is seen.

report = calibrated(scores=[0.9, 0.2, None], labels=[True, False, True])
report.precision, report.recall, report.calibration_error, report.weak
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from ccai_core.config import Config
from ccai_core.evaluation.results import Interval, Table
from ccai_core.evaluation.statistics import share_interval

_THRESHOLD = 0.5
_STRONG = 0.8
_BINS = 10


class CalibrationReport(Config):
    """A judge against labels; positive is what the score is the probability of."""

    true_positive: int = Field(ge=0, description="Positive, and said so.")
    false_positive: int = Field(ge=0, description="Negative, and said to be positive.")
    true_negative: int = Field(ge=0, description="Negative, and said so.")
    false_negative: int = Field(ge=0, description="Positive, and said to be negative.")
    unparseable: int = Field(ge=0, description="Items without a score; in no other number.")
    accuracy: Interval | None = Field(description="Share right, exact interval.")
    precision: Interval | None = Field(
        description="Of those said to be positive, the share that is."
    )
    recall: Interval | None = Field(description="Of the positive, the share that was said to be.")
    specificity: Interval | None = Field(description="Of the negative, the share said to be.")
    separation: float | None = Field(
        description="AUC: chance that a positive item scores above a negative one; 0.5 is guessing."
    )
    calibration_error: float | None = Field(
        description="Expected calibration error over ten equal bins of the score."
    )
    weak: bool = Field(description="Accuracy below 0.8, or no better than always saying one thing.")

    def table(self, title: str) -> Table:
        """Return the confusion matrix for reports."""
        return Table(
            id="judge.confusion",
            title=title,
            columns=("Truth", "Said positive", "Said negative"),
            rows=(
                ("positive", self.true_positive, self.false_negative),
                ("negative", self.false_positive, self.true_negative),
            ),
            note=f"{self.unparseable} items without a score.",
        )


def calibrated(scores: Sequence[float | None], labels: Sequence[bool]) -> CalibrationReport:
    """Compare a judge's probabilities with labels; an item without a score is only counted."""
    known = [(s, t) for s, t in zip(scores, labels, strict=True) if s is not None]
    said = [(score > _THRESHOLD, truth) for score, truth in known]
    tp, fp = said.count((True, True)), said.count((True, False))
    tn, fn = said.count((False, False)), said.count((False, True))
    accuracy = _share(tp + tn, len(known))
    most_common = max(tp + fn, tn + fp) / len(known) if known else 1.0
    weak = accuracy is None or accuracy.estimate < _STRONG or accuracy.low <= most_common
    return CalibrationReport(
        true_positive=tp, false_positive=fp, true_negative=tn, false_negative=fn,
        unparseable=len(scores) - len(known),
        accuracy=accuracy,
        precision=_share(tp, tp + fp),
        recall=_share(tp, tp + fn),
        specificity=_share(tn, tn + fp),
        separation=_auc(known),
        calibration_error=_error(known),
        weak=weak,
    )  # fmt: skip


def _share(hits: int, n: int) -> Interval | None:
    return share_interval(hits, n) if n else None


def _auc(known: Sequence[tuple[float, bool]]) -> float | None:
    from scipy.stats import mannwhitneyu

    positive = [score for score, truth in known if truth]
    negative = [score for score, truth in known if not truth]
    if not positive or not negative:
        return None
    return float(mannwhitneyu(positive, negative).statistic) / (len(positive) * len(negative))


def _error(known: Sequence[tuple[float, bool]]) -> float | None:
    """Return the mean gap between score and share of positives, weighed by items (Guo 2017)."""
    if not known:
        return None
    scores = np.array([score for score, _ in known])
    truths = np.array([truth for _, truth in known], np.float64)
    bins = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    gaps = [
        abs(scores[bins == b].mean() - truths[bins == b].mean()) * (bins == b).sum()
        for b in np.unique(bins)
    ]
    return float(sum(gaps) / len(known))
