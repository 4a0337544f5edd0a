"""From a design to what each reviewer sees, and the key to it.

sheets, key = make_sheets(prompts, models, DesignConfig(reviewers=6), secrets.SystemRandom())
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from random import Random

from pydantic import Field

from ccai_core.config import Config
from ccai_core.human_evaluation.answers import ReviewPrompt
from ccai_core.human_evaluation.design import (
    DesignConfig,
    Unit,
    assign,
    choose_prompts,
    turn_sides,
    units_of,
)
from ccai_core.human_evaluation.key import KeyItem, KeyPrompt, Kind, ReviewerKey, ReviewKey
from ccai_core.human_evaluation.questions import CHOICES, HIGHEST, LOWEST

_CHECK_PROMPT = "What helps when there is more to do in a day than fits into it?"
_CHECK_START = (
    "It helps to write down what is open, to see which of it has to be done today, and to begin "
    "with the part that others are waiting for."
)
_CHECK_END = "Most lists are shorter than they felt before they were written."
_PLAIN_ANSWER = (
    "Decide what may be left undone and say so early to those who count on it. What is left is "
    "then a plan, and a short pause between two things keeps it one."
)


class Item(Config):
    """One item as a reviewer sees it. A check has the shape of all others."""

    id: str = Field(description="Random, and another one on every page.")
    kind: Kind = Field(description="Two answers, or one.")
    prompt: str = Field(description="The prompt.")
    answers: tuple[str, ...] = Field(description="What is shown, in order.")
    harmful: bool = Field(description="Folded away behind a warning.")


class Sheet(Config):
    """What is on one reviewer's page."""

    package: str = Field(description="Random id of the package.")
    reviewer: str = Field(description="Number of the reviewer.")
    token: str = Field(description="What the page signs its export with.")
    items: tuple[Item, ...] = Field(description="In the order shown.")


def make_sheets(
    prompts: Sequence[ReviewPrompt],
    models: Sequence[str],
    config: DesignConfig,
    rng: Random,
    excluded: Mapping[str, int] | None = None,
) -> tuple[list[Sheet], ReviewKey]:
    """Draw a review.

    Args:
        prompts: all that every model answered.
        models: who is compared.
        config: its size.
        rng: where chance comes from; `secrets.SystemRandom()` unless it must be repeated.
        excluded: prompts that cannot be shown, by reason; kept in the key for the report.

    Raises:
        ConfigError: there is no prompt.
    """
    chosen = choose_prompts(prompts, config.prompts, rng)
    pages = turn_sides(assign(units_of(chosen, models, config), config, rng), rng)
    package = _random_id(rng)
    drawn = [
        _sheet(page, package, f"{number:02}", config, rng)
        for number, page in enumerate(pages, start=1)
    ]
    key = ReviewKey(
        package=package,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        models=tuple(models),
        prompts={
            p.id: KeyPrompt(label=p.label, text=p.text, harmful=p.harmful, scores=p.scores)
            for p in chosen
        },
        excluded=dict(excluded or {}),
        reviewers=tuple(reviewer for _, reviewer in drawn),
    )
    return [sheet for sheet, _ in drawn], key


def _sheet(
    page: Sequence[Unit], package: str, reviewer: str, config: DesignConfig, rng: Random
) -> tuple[Sheet, ReviewerKey]:
    entries = [_item(unit, rng) for unit in page]
    kinds = sorted({unit.kind for unit in page})
    for number in range(config.checks if page else 0):
        # Never the first: people begin with what they came for.
        entries.insert(rng.randint(1, len(entries)), _check(kinds[number % len(kinds)], rng))
    token = f"{rng.getrandbits(128):032x}"
    items, keys = tuple(item for item, _ in entries), tuple(key for _, key in entries)
    return (
        Sheet(package=package, reviewer=reviewer, token=token, items=items),
        ReviewerKey(id=reviewer, token=token, items=keys),
    )


def _item(unit: Unit, rng: Random) -> tuple[Item, KeyItem]:
    identity = _random_id(rng)
    item = Item(
        id=identity,
        kind=unit.kind,
        prompt=unit.prompt.text,
        answers=tuple(unit.prompt.answers[model] for model in unit.models),
        harmful=unit.prompt.harmful,
    )
    key = KeyItem(id=identity, kind=unit.kind, prompt=unit.prompt.id, models=unit.models)
    return item, key


def _check(kind: Kind, rng: Random) -> tuple[Item, KeyItem]:
    """Make an item that says itself what to choose, in the midst of ordinary sentences."""
    identity = _random_id(rng)
    choice = rng.choice(sorted(CHOICES)) if kind == "pair" else None
    rating = rng.randint(LOWEST, HIGHEST) if kind == "rating" else None
    told = (
        f"please choose “{CHOICES[choice]}”"
        if choice
        else f"please give {rating} to all four questions"
    )
    asking = (
        f"{_CHECK_START} This item only checks that the texts are read: {told}, whatever you think "
        f"of it. {_CHECK_END}"
    )
    answers = [asking, _PLAIN_ANSWER] if kind == "pair" else [asking]
    item = Item(
        id=identity,
        kind=kind,
        prompt=_CHECK_PROMPT,
        answers=tuple(rng.sample(answers, len(answers))),
        harmful=False,
    )
    key = KeyItem(id=identity, kind=kind, prompt="", models=(), choice=choice, rating=rating)
    return item, key


def _random_id(rng: Random) -> str:
    return f"{rng.getrandbits(64):016x}"
