"""How much an evaluation asks: known before it starts, so that nobody pays for a surprise.

size = size_of(config, constitution, hazards, scenarios)
size.calls, size.tokens, size.verdicts       # of one of the two models
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ccai_core.constitution import Constitution
from ccai_core.evaluation.capability import capability_items
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.evaluation.items import select_items
from ccai_core.evaluation.suite import criteria_for
from ccai_core.evaluation.suites import SUITES, suite_parts
from ccai_core.prompts.scenarios import shipped_adversarial
from ccai_core.types import Prompt


class Size(NamedTuple):
    """What one model is asked, and what is asked about its answers."""

    calls: int
    """Answers."""
    tokens: int
    """Of all answers together, at most."""
    choices: int
    """Multiple-choice items; nothing is written."""
    verdicts: int
    """Questions to the judge or guard about its answers."""


def size_of(
    config: EvaluationConfig,
    constitution: Constitution,
    hazards: Sequence[Prompt],
    scenarios: Sequence[Prompt],
) -> Size:
    """Return how much is asked of one model; lm-evaluation-harness is not counted.

    Raises:
        DataError: there is too little to evaluate on, or a file of the suite cannot be used.
    """
    items = select_items(config, hazards, scenarios, shipped_adversarial(), trained=())
    parts = suite_parts(config, constitution, hazards, scenarios)
    rated = len(items.safety) + sum(len(criteria_for(p, constitution)) for p in items.scenarios)
    duels = len(items.scenarios) if SUITES[config.suite].head_to_head else 0
    return Size(
        calls=len(items.texts) + sum(part.calls for part in parts),
        tokens=len(items.texts) * config.response_tokens + sum(part.most_tokens for part in parts),
        choices=len(capability_items(config.capability_items)),
        verdicts=rated + duels + sum(part.judged for part in parts),
    )
