"""Whole numbers by weight: largest remainder, and no part more than it has.

divide(10, {"a": 2, "b": 1})                       # {'a': 7, 'b': 3}
apportion(10, {"a": 2, "b": 1}, {"a": 4, "b": 9})  # {'a': 4, 'b': 6}
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping


def divide(count: int, weights: Mapping[str, float], seed: int = 0) -> dict[str, int]:
    """Divide `count` by weight, to the one; a part of weight 0 gets nothing.

    What rounding leaves goes to the largest remainders. Equal ones are told apart by a hash of name
    and seed, so that over many strata no part is always the one that wins.
    """
    total = math.fsum(weights.values())
    if total <= 0:
        return dict.fromkeys(weights, 0)
    exact = {name: count * weight / total for name, weight in weights.items()}
    parts = {name: math.floor(share + 1e-9) for name, share in exact.items()}
    left = count - sum(parts.values())
    by_remainder = sorted(
        (name for name in weights if weights[name] > 0),
        key=lambda name: (-round(exact[name] - parts[name], 9), _hash(name, seed)),
    )
    for name in by_remainder[:left]:
        parts[name] += 1
    return parts


def apportion(
    count: int, weights: Mapping[str, float], sizes: Mapping[str, int], seed: int = 0
) -> dict[str, int]:
    """Divide `count` by weight among parts that have only so many each.

    A part that has less than its share gives all it has; the others divide the rest, by weight
    again. The sum is `count`, or all there is.
    """
    parts = dict.fromkeys(weights, 0)
    open_ones = {name: weight for name, weight in weights.items() if weight > 0}
    left = count
    while open_ones:
        shares = divide(left, open_ones, seed)
        full = [name for name in open_ones if shares[name] >= sizes[name]]
        if not full:
            return parts | shares
        for name in full:
            parts[name] = sizes[name]
            left -= sizes[name]
            del open_ones[name]
    return parts


def _hash(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
