"""A rating as an expected value: every grade weighed by its probability, no digit is sampled.

rating = await expected_rating(engine, conversation, "How clear is the answer?", top=5)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ccai_core.types import Choose, Message, user


async def expected_rating(
    engine: Choose, conversation: Sequence[Message], question: str, top: int = 5
) -> float:
    """Return the mean grade, 1 to `top`, over the judge's probabilities of each.

    Args:
        engine: the judge.
        conversation: what is rated, its last turn an answer.
        question: what to rate.
        top: best grade, at most 9, so that every grade is one digit.
    """
    grades = tuple(str(grade) for grade in range(1, top + 1))
    asked = user(
        f"Look at the answer above. {question} Reply with one digit from 1 (not at all) to {top} "
        "(entirely)."
    )
    scores = await engine.choose((*conversation, asked), grades)
    return sum(p * grade for grade, p in enumerate(probabilities(scores), start=1))


def probabilities(log_probabilities: Sequence[float]) -> list[float]:
    """Return the probabilities of options that exclude each other, summing to 1."""
    most = max(log_probabilities)
    weights = [math.exp(value - most) for value in log_probabilities]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
