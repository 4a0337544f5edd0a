"""Are planted better, worse and equal models found? The whole comparison on simulated scores.

    python benchmarks/evaluation/planted.py --rounds 100 --items 60

Every round draws a judge's scores of two models on the same items: equal in one case, shifted by
`--shift` in the others. Equal models should be significant in about 5 of 100 rounds or fewer,
shifted ones found with p < 0.01 in nearly all.
"""

from __future__ import annotations

import argparse

import numpy as np

from ccai_core.evaluation.parts import About, mean_metric, share_metric
from ccai_core.evaluation.results import Metric

CASES = {"equal": 0.0, "better": 1.0, "worse": -1.0}


def draw(
    rng: np.random.Generator, items: int, shift: float, seed: int
) -> tuple[Metric | About, Metric | About]:
    """Return the mean and the share measure of one round."""
    hard = rng.normal(size=items)
    noise = rng.normal(size=(2, items))
    odds = hard + 0.7 * noise + np.array([[0.0], [shift]])
    before, after = (1 / (1 + np.exp(-odds))).tolist()
    about = About("m", "M", "safety", "")
    pairs = list(zip(before, after, strict=True))
    return (
        mean_metric(about, pairs, {}, seed),
        share_metric(about, [(b > 0.5, a > 0.5) for b, a in pairs], {}),
    )


def main(rounds: int, items: int, shift: float) -> None:
    """Print, for each case and measure, how often p is below 0.05 and 0.01."""
    for name, sign in CASES.items():
        rng = np.random.default_rng(1)
        p: dict[str, list[float]] = {"mean": [], "share": []}
        for number in range(rounds):
            found = draw(rng, items, sign * shift, number)
            for kind, metric in zip(p, found, strict=True):
                if isinstance(metric, Metric) and metric.p_value is not None:
                    right_way = sign == 0 or metric.difference.estimate * sign > 0
                    p[kind].append(metric.p_value if right_way else 1.0)
        for kind, values in p.items():
            below = [sum(v < level for v in values) for level in (0.05, 0.01)]
            print(f"{name:<7} {kind:<6} p < 0.05: {below[0]}, p < 0.01: {below[1]} of {rounds}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--shift", type=float, default=1.0)
    chosen = parser.parse_args()
    main(chosen.rounds, chosen.items, chosen.shift)
