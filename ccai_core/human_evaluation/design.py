"""Who sees what, in which order and on which side: balanced, random, and blind.

Nothing here looks at a model's name or at an answer: the same random numbers give the same pages,
whoever wrote what.

    sheets, key_parts = design(prompts, models, DesignConfig(reviewers=6), secrets.SystemRandom())
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, zip_longest
from random import Random
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from ccai_core.config import Config
from ccai_core.errors import ConfigError
from ccai_core.human_evaluation.answers import ReviewPrompt
from ccai_core.human_evaluation.key import Kind

# Above so many sets of reviewers an item's are found one after the other.
_MOST_SETS = 3_000


class DesignConfig(Config):
    """How large a review is, and who sees how much of it."""

    reviewers: int = Field(3, ge=1, le=200, description="Reviewers; each gets a page.")
    prompts: int = Field(12, ge=1, le=1_000, description="Prompts shown, spread over their labels.")
    per_item: int | None = Field(
        None,
        ge=1,
        description="Reviewers of each item; fewer than all makes pages shorter. Unset: 3, or all.",
    )
    pairs: bool = Field(True, description="Show two answers side by side and ask for the better.")
    ratings: bool = Field(True, description="Show single answers and ask the four questions.")
    checks: int = Field(2, ge=0, le=10, description="Attention checks on each page.")

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not (self.pairs or self.ratings):
            raise ValueError("a review without pairs and without ratings asks nothing")
        if self.per_item and self.per_item > self.reviewers:
            raise ValueError(
                f"{self.per_item} reviewers of each item are more than there are "
                f"(reviewers: {self.reviewers})"
            )
        return self

    @property
    def each(self) -> int:
        """How many reviewers see each item."""
        return self.per_item or min(3, self.reviewers)


class Unit(NamedTuple):
    """One thing to be judged: a pair of answers, or a single one."""

    kind: Kind
    prompt: ReviewPrompt
    models: tuple[str, ...]


def choose_prompts(prompts: Sequence[ReviewPrompt], count: int, rng: Random) -> list[ReviewPrompt]:
    """Take `count` prompts, from each label in turn, at random within it.

    Raises:
        ConfigError: there is not one.
    """
    if not prompts:
        raise ConfigError(
            "No prompt is left that every model answered and that is held out. Give more answers; "
            "`--dry-run` says why prompts are not shown."
        )
    columns: dict[str, list[ReviewPrompt]] = defaultdict(list)
    for prompt in rng.sample(list(prompts), len(prompts)):
        columns[prompt.label].append(prompt)
    in_turn = [p for row in zip_longest(*columns.values()) for p in row if p is not None]
    return in_turn[:count]


def units_of(
    prompts: Sequence[ReviewPrompt], models: Sequence[str], config: DesignConfig
) -> list[Unit]:
    """Return everything that is to be judged: each pair of models and each model, a prompt."""
    return [
        *(
            Unit("pair", prompt, two)
            for prompt in prompts
            for two in combinations(models, 2)
            if config.pairs
        ),
        *(
            Unit("rating", prompt, (model,))
            for prompt in prompts
            for model in models
            if config.ratings
        ),
    ]


def assign(units: Sequence[Unit], config: DesignConfig, rng: Random) -> list[list[Unit]]:
    """Divide the units among the reviewers, each to as many as the settings say.

    A balanced incomplete block design as near as the numbers allow: pages differ by one item at
    most; then a reviewer sees a prompt as rarely as can be, for who knows one answer judges the
    next by it; then all two reviewers have as many items in common, which agreement is counted on.
    """
    pages: list[list[Unit]] = [[] for _ in range(config.reviewers)]
    seen: Counter[tuple[int, str]] = Counter()
    together: Counter[tuple[int, int]] = Counter()
    for unit in rng.sample(list(units), len(units)):
        chosen = _reviewers_of(unit, pages, seen, together, config.each, rng)
        for reviewer in chosen:
            pages[reviewer].append(unit)
            seen[reviewer, unit.prompt.id] += 1
        together.update(combinations(sorted(chosen), 2))
    return [rng.sample(page, len(page)) for page in pages]


def _reviewers_of(
    unit: Unit,
    pages: Sequence[Sequence[Unit]],
    seen: Mapping[tuple[int, str], int],
    together: Mapping[tuple[int, int], int],
    count: int,
    rng: Random,
) -> list[int]:
    everybody = range(len(pages))

    def cost(members: Iterable[int]) -> tuple[int, int, int, float]:
        group = sorted(members)
        return (
            sum(len(pages[reviewer]) for reviewer in group),
            sum(seen[reviewer, unit.prompt.id] for reviewer in group),
            sum(together[two] for two in combinations(group, 2)),
            rng.random(),
        )

    if math.comb(len(pages), count) <= _MOST_SETS:
        return list(min(combinations(everybody, count), key=cost))
    group: list[int] = []
    while len(group) < count:
        rest = (reviewer for reviewer in everybody if reviewer not in group)
        group = min(([*group, reviewer] for reviewer in rest), key=cost)
    return group


def turn_sides(pages: Sequence[Sequence[Unit]], rng: Random) -> list[list[Unit]]:
    """Decide who stands on the left: as often the one as the other, for each pair and reviewer."""
    of_unit: Counter[tuple[str, ...]] = Counter()
    turned: list[list[Unit]] = []
    for page in pages:
        of_page: Counter[tuple[str, ...]] = Counter()
        here: list[Unit] = []
        for unit in page:
            if unit.kind == "pair":
                # Counted by the pair as it was made, which is the same on every page.
                name = (unit.prompt.id, *unit.models)
                leaning = of_unit[name] or of_page[unit.models]
                side = rng.choice((1, -1)) if not leaning else -1 if leaning > 0 else 1
                of_unit[name] += side
                of_page[unit.models] += side
                unit = unit._replace(models=unit.models[::side])
            here.append(unit)
        turned.append(here)
    return turned
