"""How often our 95% intervals hold the truth, by simulation: nominal is 95%.

    python benchmarks/evaluation/coverage.py --rounds 2000

Exact binomial intervals hold it more often than 95% by construction; they are listed to show by how
much. Every other interval should be between 94% and 96.5%.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator

import numpy as np

from ccai_core.evaluation import effects
from ccai_core.evaluation import statistics as st
from ccai_core.evaluation.results import Interval

Draw = Callable[[np.random.Generator, int], tuple[Interval | None, float]]


def share(wilson: bool, n: int, p: float | None = None) -> Draw:
    """Draw a share of n items of which p are hits; without p, of one from 0.05 to 0.95."""
    interval = st.wilson_interval if wilson else st.share_interval

    def draw(rng: np.random.Generator, _: int) -> tuple[Interval, float]:
        truth = float(rng.uniform(0.05, 0.95)) if p is None else p
        return interval(int(rng.binomial(n, truth)), n), truth

    return draw


def share_change(n: int, up: float, down: float) -> Draw:
    """Draw paired hits and misses that change with these probabilities."""

    def draw(rng: np.random.Generator, _: int) -> tuple[Interval, float]:
        won, lost, same = rng.multinomial(n, [up, down, 1 - up - down])
        before = [False] * won + [True] * (lost + same)
        after = [True] * won + [False] * lost + [True] * same
        return st.share_difference(before, after), up - down

    return draw


def mean_change(n: int, skewed: bool) -> Draw:
    """Draw paired scores whose differences are normal, or skewed as judges' scores are."""

    def draw(rng: np.random.Generator, round_: int) -> tuple[Interval, float]:
        before = rng.beta(2, 5, size=n)
        noise = rng.beta(1, 4, size=n) - 0.2 if skewed else 0.1 * rng.normal(size=n)
        return st.mean_difference(before.tolist(), (before + noise).tolist(), round_), 0.0

    return draw


def perplexity(paragraphs: int) -> Draw:
    """Draw paragraphs that one model finds 2% harder."""

    def draw(rng: np.random.Generator, round_: int) -> tuple[Interval, float]:
        tokens = rng.integers(60, 140, size=paragraphs)
        level = rng.normal(3.0, 0.25, size=paragraphs)
        harder = 0.02 + 0.01 * rng.normal(size=paragraphs)
        before, after = -level * tokens, -(level + harder) * tokens
        # The mean over very many paragraphs of exp of the token-weighted mean.
        truth = math.exp(3.02) - math.exp(3.0)
        found = st.perplexity_difference(before.tolist(), after.tolist(), tokens.tolist(), round_)
        return found, truth

    return draw


def effect(n: int, d: float, paired: bool) -> Draw:
    """Draw two samples that differ by d standard deviations."""

    def draw(rng: np.random.Generator, round_: int) -> tuple[Interval | None, float]:
        before = rng.normal(size=n)
        if paired:
            after = before + d + rng.normal(size=n)
            return effects.paired_d(before.tolist(), after.tolist(), round_), d
        return effects.cohen_d(before.tolist(), (d + rng.normal(size=n)).tolist()), d

    return draw


CASES: dict[str, Draw] = {
    "share, exact, n = 100, p = 0.8 (conservative)": share(False, 100, 0.8),
    "share, exact, n = 1200, p = 0.8 (conservative)": share(False, 1200, 0.8),
    "share, Wilson, n = 100, any p": share(True, 100),
    "share, Wilson, n = 30, any p": share(True, 30),
    "difference of shares, n = 60, 15% up, 5% down": share_change(60, 0.15, 0.05),
    "difference of shares, n = 200, 10% up, 10% down": share_change(200, 0.1, 0.1),
    "difference of means, n = 24, normal": mean_change(24, skewed=False),
    "difference of means, n = 60, skewed": mean_change(60, skewed=True),
    "difference of means, n = 200, skewed": mean_change(200, skewed=True),
    "perplexity difference, 16 paragraphs": perplexity(16),
    "Cohen's d, 2 x 50, d = 0.96": effect(50, 0.96, paired=False),
    "Cohen's d, 2 x 50, d = 7": effect(50, 7.0, paired=False),
    "paired d, n = 60, d = 0.5": effect(60, 0.5, paired=True),
}


def coverage(rounds: int) -> Iterator[tuple[str, float, float]]:
    """Yield each case with its coverage and the standard error of that."""
    for number, (name, draw) in enumerate(CASES.items()):
        rng = np.random.default_rng(number)
        held = 0
        for round_ in range(rounds):
            found, truth = draw(rng, round_)
            held += found is not None and found.low <= truth <= found.high
        rate = held / rounds
        yield name, rate, math.sqrt(rate * (1 - rate) / rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    for title, rate, error in coverage(parser.parse_args().rounds):
        print(f"{title:<52} {rate:6.1%} (standard error {error:.1%})", flush=True)
