"""Does the judge see what people see? Its scores against the reviewers' preferences and ratings.

agreement = judge_agreement(reviews, key, seed=0)      # None where answers came without scores
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from ccai_core.config import Config
from ccai_core.evaluation.results import Interval
from ccai_core.evaluation.statistics import rank_correlation, share_interval
from ccai_core.human_evaluation.collect import Reviews
from ccai_core.human_evaluation.key import ReviewKey

_RESAMPLES = 1_000
# With fewer a rank correlation says nothing, and its resamples often have no spread at all.
_LEAST = 5


class JudgeAgreement(Config):
    """How a judge's scores compare with what people say of the same answers."""

    same: Interval | None = Field(
        description="Share of prompts where both prefer the same of two answers; chance is 0.5."
    )
    compared: int = Field(description="Pairs of answers where both have a preference.")
    undecided: int = Field(description="Pairs where the judge or the people have none.")
    rank_correlation: Interval | None = Field(
        description="Spearman's rho of the scores and the people's mean ratings."
    )
    rated: int = Field(description="Answers with a score and a rating.")


def judge_agreement(reviews: Reviews, key: ReviewKey, seed: int) -> JudgeAgreement | None:
    """Compare the scores that answers came with to the reviewers' judgements."""
    if not any(prompt.scores for prompt in key.prompts.values()):
        return None
    same, undecided = _preferences(reviews, key)
    rated = _rated(reviews, key)
    return JudgeAgreement(
        same=share_interval(sum(same), len(same)) if same else None,
        compared=len(same),
        undecided=undecided,
        rank_correlation=_correlation(rated, seed),
        rated=sum(len(answers) for answers in rated.values()),
    )


def _preferences(reviews: Reviews, key: ReviewKey) -> tuple[list[bool], int]:
    """Return, a pair of answers, whether judge and most people agree, and how many are open."""
    points: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for preference in reviews.preferences:
        first, second = sorted((preference.left, preference.right))
        points[preference.prompt, first, second].append(preference.points(first))
    same, undecided = [], 0
    for (prompt, first, second), given in points.items():
        scores = key.prompts[prompt].scores
        if first not in scores or second not in scores:
            continue
        people, judge = np.mean(given) - 0.5, scores[first] - scores[second]
        if people and judge:
            same.append(bool((people > 0) == (judge > 0)))
        else:
            undecided += 1
    return same, undecided


def _rated(reviews: Reviews, key: ReviewKey) -> dict[str, list[tuple[float, float]]]:
    """Return, a prompt, the judge's score and the people's mean of each answer to it."""
    values: dict[tuple[str, str], list[int]] = defaultdict(list)
    for rating in reviews.ratings:
        values[rating.prompt, rating.model].append(rating.value)
    rated: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (prompt, model), given in values.items():
        score = key.prompts[prompt].scores.get(model)
        if score is not None:
            rated[prompt].append((score, float(np.mean(given))))
    return rated


def _correlation(rated: Mapping[str, Sequence[tuple[float, float]]], seed: int) -> Interval | None:
    """Return rho with a bootstrap over prompts: answers to one prompt belong together."""
    groups = list(rated.values())
    estimate = _rho(groups)
    if len(groups) < _LEAST or estimate is None:
        return None
    rng = np.random.default_rng(seed)
    drawn = (
        _rho([groups[i] for i in rng.integers(0, len(groups), len(groups))])
        for _ in range(_RESAMPLES)
    )
    low, high = np.quantile([rho for rho in drawn if rho is not None], [0.025, 0.975])
    return Interval(
        estimate=estimate, low=min(float(low), estimate), high=max(float(high), estimate)
    )


def _rho(groups: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    pairs = [pair for group in groups for pair in group]
    return rank_correlation([score for score, _ in pairs], [mean for _, mean in pairs])
