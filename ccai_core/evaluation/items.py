"""Which prompts an evaluation asks: held out, never trained on, spread over hazards and principles.

The choice is a pure function of the prompts, the sizes and the seed.

    items = select_items(EvaluationConfig(), None, shipped_scenarios(), shipped_adversarial(),
                         trained=texts_trained_on(Path("pairs-3f2a")))
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from pydantic import Field

from ccai_core.config import Config
from ccai_core.errors import DataError
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.prompts.leaks import Trained, refuse_leaks, trained_on
from ccai_core.prompts.splits import normalise
from ccai_core.training_data import read_pairs
from ccai_core.types import Prompt, fingerprint


class EvaluationItems(Config):
    """The prompts that both models answer."""

    safety: tuple[Prompt, ...] = Field(description="Rated for safety.")
    scenarios: tuple[Prompt, ...] = Field(description="Rated by the principles' criteria.")
    notes: tuple[str, ...] = Field((), description="Where they are from, and what is missing.")

    @property
    def texts(self) -> tuple[str, ...]:
        """Every prompt text once, in order."""
        return tuple(dict.fromkeys(p.text for p in (*self.safety, *self.scenarios)))


def texts_trained_on(pairs: Path) -> tuple[Trained, ...]:
    """Return what users say in a file or data set of training pairs."""
    return trained_on(read_pairs(pairs))


def select_items(
    config: EvaluationConfig,
    ailuminate: Sequence[Prompt] | None,
    scenarios: Sequence[Prompt],
    adversarial: Sequence[Prompt],
    trained: Sequence[Trained],
) -> EvaluationItems:
    """Choose held-out prompts; safety takes AILuminate's, or else adversarial ones and scenarios.

    Args:
        config: sizes and seed.
        ailuminate: AILuminate prompts, when there are any.
        scenarios: contemplative scenarios.
        adversarial: requests that a safe model declines.
        trained: what users say in the training pairs.

    Raises:
        DataError: a chosen prompt was trained on, in its words or nearly (they are listed), or too
            few are held out.
    """
    chosen = spread(scenarios, config.scenario_prompts, config.seed)
    if ailuminate:
        safety = spread(ailuminate, config.safety_prompts, config.seed)
        note = f"Safety was rated on {len(safety)} held-out AILuminate prompts."
    else:
        requests = spread(adversarial, config.safety_prompts, config.seed)
        more = chosen[: config.safety_prompts - len(requests)]
        safety = [*requests, *more]
        note = (
            f"Safety was rated on {len(requests)} shipped adversarial requests and {len(more)} "
            "contemplative scenarios, for no AILuminate prompts were given; it says nothing of "
            "AILuminate grades."
        )
    items = EvaluationItems(
        safety=tuple(safety),
        scenarios=tuple(chosen),
        notes=(note, *_shortfalls(config, len(safety), len(chosen))),
    )
    if len(safety) < 2 and len(chosen) < 2:
        raise DataError(
            "There is nothing to evaluate on: fewer than 2 of the prompts are on the test side. "
            "Give more prompts; which side a prompt is on depends on its text alone."
        )
    # A prompt may be in both parts.
    refuse_leaks(trained, dict.fromkeys((*items.safety, *items.scenarios)))
    return items


def spread(prompts: Iterable[Prompt], count: int, seed: int) -> list[Prompt]:
    """Take `count` held-out prompts, from each hazard or principle in turn, in hashed order."""
    strata: dict[str, dict[str, Prompt]] = defaultdict(dict)
    for prompt in prompts:
        if prompt.split == "test":
            stratum = prompt.hazard or prompt.principle or prompt.source
            strata[stratum].setdefault(normalise(prompt.text), prompt)
    columns = [
        [of_stratum[text] for text in sorted(of_stratum, key=lambda t: fingerprint([seed, t]))]
        for _, of_stratum in sorted(strata.items())
    ]
    rounds = (prompt for row in zip_longest(*columns) for prompt in row if prompt)
    unique = {normalise(prompt.text): prompt for prompt in rounds}
    return list(unique.values())[:count]


def _shortfalls(config: EvaluationConfig, safety: int, scenarios: int) -> list[str]:
    wanted = {
        "safety prompts": (config.safety_prompts, safety),
        "scenarios": (config.scenario_prompts, scenarios),
    }
    return [
        f"{asked} {name} were asked for; only {found} are held out."
        for name, (asked, found) in wanted.items()
        if found < asked
    ]
