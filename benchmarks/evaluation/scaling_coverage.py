"""How often does the interval of a trend over model size hold the true slope?

    python benchmarks/evaluation/scaling_coverage.py --rounds 1000 --items 60

Every round draws items of random difficulty from a population, lets four models of growing size
answer them, and fits the line as `flows.compare` does. The truth is the slope that the line would
have on the whole population. The models and their sizes stay the same: that is what the interval
is about.
"""

from __future__ import annotations

import argparse

import numpy as np

from ccai_core.comparison.results import Point
from ccai_core.comparison.scaling import trend
from ccai_core.comparison.values import Column
from ccai_core.evaluation.statistics import mean_interval, share_interval

SIZES = (135_000_000, 360_000_000, 1_700_000_000, 7_000_000_000)
ABILITIES = (-0.6, -0.1, 0.2, 1.0)
POPULATION = 200_000


def answers(rng: np.random.Generator, hard: np.ndarray, kind: str) -> np.ndarray:
    """Return what each model (a row) gets on each item."""
    odds = np.asarray(ABILITIES)[:, None] - hard + 0.5 * rng.normal(size=(len(SIZES), len(hard)))
    chances: np.ndarray = 1 / (1 + np.exp(-odds))
    return (rng.random(chances.shape) < chances).astype(float) if kind == "share" else chances


def slope(levels: np.ndarray) -> float:
    """Return the slope of the line through levels over the sizes."""
    return float(np.polyfit(np.log10(SIZES), levels, 1)[0])


def covers(rng: np.random.Generator, items: int, kind: str, truth: float, seed: int) -> bool:
    """Return whether the interval of one round holds the truth."""
    values = answers(rng, rng.normal(size=items), kind)
    columns = [Column(kind, {str(i): float(v) for i, v in enumerate(row)}, {}) for row in values]
    points = []
    for size, row in zip(SIZES, values, strict=True):
        level = share_interval(int(row.sum()), items) if kind == "share" else mean_interval(row, 0)
        points.append(Point(model=str(size), parameters=size, value=level))
    found = trend(points, columns, "after training", seed)
    return found is not None and found.slope.low <= truth <= found.slope.high


def main(rounds: int, items: int) -> None:
    """Print the coverage for shares and means."""
    for kind in ("share", "mean"):
        rng = np.random.default_rng(1)
        truth = slope(answers(rng, rng.normal(size=POPULATION), kind).mean(axis=1))
        held = sum(covers(rng, items, kind, truth, number) for number in range(rounds))
        print(f"{kind:<6} n = {items}: {100 * held / rounds:.1f}% of {rounds}, slope {truth:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--items", type=int, default=60)
    chosen = parser.parse_args()
    main(chosen.rounds, chosen.items)
