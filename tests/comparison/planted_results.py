"""Evaluations with planted outcomes: a share, a mean and perplexity, kept by item."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ccai_core.evaluation import statistics
from ccai_core.evaluation.parts import About, mean_metric, share_metric
from ccai_core.evaluation.results import EvaluationResult, ItemValues, JudgeCard, Metric

ITEMS = 60
_SAFE = About("safety.safe_rate", "Safe answers", "safety", "Share of safe ones.", judged=True)
_RIGHT = About("capability.overall", "All items", "capability", "Share of right ones.")
_WISE = About(
    "contemplative.overall", "All principles", "contemplative", "Mean.", judged=True,
    unit="probability",
)  # fmt: skip


def asked(**changes: Any) -> dict[str, Any]:
    return {
        "suite": "poc", "judge": "judge@1", "guard": "", "prompts": "p1", "parts": "q1",
        "constitution": "c1", "seed": 0, **changes,
    }  # fmt: skip


def flags(share: float, items: int = ITEMS) -> list[bool]:
    """The first ones are ones, so that a better model has all that a worse one has."""
    return [i < round(share * items) for i in range(items)]


def result(
    baseline: str = "base@1",
    trained: str = "tuned@2",
    shares: tuple[float, float] = (0.4, 0.8),
    *,
    keep: bool = True,
    parameters: dict[str, int] | None = None,
    tokens: Sequence[int] = (10,) * 16,
    weak: bool = False,
    **changes: Any,
) -> EvaluationResult:
    keys = [f"item-{i}" for i in range(ITEMS)] if keep else []
    before, after = (flags(share) for share in shares)
    random = np.random.default_rng(7)
    noise = random.normal(0, 0.02, ITEMS)
    means = [(shares[0] + n, shares[1] + 2 * n) for n in noise.tolist()]
    values: dict[str, Any] = {
        "suite": "poc",
        "baseline_model": baseline,
        "trained_model": trained,
        "judge": JudgeCard(model="judge@1", method="log-probability", calibrations=(), weak=weak),
        "metrics": (
            share_metric(_SAFE, list(zip(before, after, strict=True)), {}, keys=keys),
            mean_metric(_WISE, means, {}, 0, keys),
            share_metric(_RIGHT, list(zip(before, before, strict=True)), {}, keys=keys),
            _perplexity(shares, tokens, keep=keep),
        ),
        "asked": asked(),
        "parameters": parameters or {},
    }
    return EvaluationResult(**{**values, **changes})


def _perplexity(shares: tuple[float, float], tokens: Sequence[int], *, keep: bool) -> Metric:
    before, after = (
        [-t * math.log(20 - 10 * share) - 0.01 * i for i, t in enumerate(tokens)]
        for share in shares
    )
    return Metric(
        id="capability.perplexity", title="Perplexity", group="capability", description="Prose.",
        unit="perplexity", higher_is_better=False, judged=False, n=len(tokens),
        baseline=statistics.perplexity_interval(before, tokens, 0),
        trained=statistics.perplexity_interval(after, tokens, 0),
        difference=statistics.perplexity_difference(before, after, tokens, 0),
        p_value=statistics.sign_flip(before, after, 0), test="sign flips",
        items=ItemValues(
            kind="perplexity", names=tuple(f"paragraph-{i}" for i in range(len(tokens))),
            baseline=tuple(before), trained=tuple(after), tokens=tuple(tokens),
        ) if keep else None,
    )  # fmt: skip


def saved(folder: Path, *results: EvaluationResult) -> list[Path]:
    """Write results as files; returns them."""
    paths = []
    for number, each in enumerate(results):
        paths.append(folder / f"evaluation-{number}.json")
        paths[-1].write_text(each.model_dump_json(), encoding="utf-8")
    return paths


def sizes(*shares: tuple[float, float]) -> list[EvaluationResult]:
    """One evaluation a size, each ten times the size before."""
    found = []
    for number, pair in enumerate(shares):
        base, tuned = f"base-{number}@1", f"tuned-{number}@2"
        count = 10 ** (8 + number)
        found.append(result(base, tuned, pair, parameters={base: count, tuned: count}))
    return found
