"""Planted judgements, odd ones among them, and what FastChat itself makes of them.

The grades and averages were computed with FastChat's own code (commit 0e6d3e4: the patterns and
the reading of common.py, and show_result.py with pandas); -1 is its mark of no grade.
"""

from __future__ import annotations

import random

ENDINGS = (
    "[[7]]", "[[8.5]]", "Rating: [[10]]", "[[3.]]", "[4]", "It is a [6.5] for me.",
    "[[9]] or [[2]]",
    "[2], no: [[5]]", "[[ 7 ]]", "Rating: 8", "", "[[seven]]", "[[8/10]]", "[[-3]]", "[[0]]",
    "[[12]]", "[[7]", "[7]]", "[[6]]\n\n[[1]]", "[[5,6]]",
)  # fmt: skip


def judgements() -> list[str]:
    """Return 160: question by question, first and second turn."""
    rng = random.Random(3)
    return [f"The answer is fair. {rng.choice(ENDINGS)}" for _ in range(160)]


FASTCHAT_GRADES: tuple[float, ...] = (
    5, 6, 7, 4, -1, -1, 12, 6, 10, -1, 7, 12, -1, 7, 5, 9, 12, 7, 7, 12, -1, 4, 5, 4, 7, -1, 7,
    10, 6.5, 6, 8.5, -1, 7, -1, 12, -1, -1, -1, -1, 6, 0, 4, -1, 3.0, 8.5, 4, 12, 9, -1, -1, -1,
    -1, 7, -1, 6, -1, 7, 6, -1, 6, 5, -1, 7, -1, -1, 6.5, -1, 7, 6, 6, 3.0, 9, 6, -1, -1, 3.0, 10,
    12, 12, 10, -1, 10, -1, 4, 7, -1, -1, -1, 3.0, 8.5, -1, -1, 8.5, -1, 6, -1, 7, -1, 7, 5, 8.5,
    -1, 7, 10, 3.0, -1, 7, 8.5, 9, -1, -1, -1, -1, 4, 8.5, -1, -1, -1, 4, -1, -1, 0, 7, -1, -1, 7,
    3.0, -1, 7, -1, -1, 5, -1, -1, -1, 7, -1, 7, -1, 7, -1, 6, -1, 7, -1, -1, 6, 4, 8.5, -1, 0,
    -1, -1, -1, -1, 12, 7, 6, 8.5, 7,
)  # fmt: skip
FASTCHAT_FIRST, FASTCHAT_SECOND, FASTCHAT_AVERAGE = (
    6.938775510204081,
    6.7444444444444445,
    6.845744680851064,
)
