"""From prompts as they were read to those that may be used: the same way for every flow.

Cleaned, each question once, none that an evaluation of ours asks on the train side, each with a
category; and of the hazard prompts, which call for the principles.

    selected = select(gather(sources))
    train = [p for p in selected.usable if p.split != "test"]
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from ccai_core.prompts.categories import with_categories
from ccai_core.prompts.cleaning import Cleaned, CleaningConfig, clean
from ccai_core.prompts.given import Gathered
from ccai_core.prompts.leaks import find_leaks, shipped_evaluation_prompts, trained_on
from ccai_core.prompts.preparation import LeftOut
from ccai_core.prompts.relevance import THRESHOLD, calls_for_principles
from ccai_core.types import Prompt

_NOT_RELEVANT = "does not call for the principles"


@dataclass(frozen=True)
class Selected:
    """What may be used, and what became of the rest."""

    clean: tuple[Prompt, ...]
    """Cleaned prompts, each with a category."""
    relevant: tuple[bool, ...]
    """Of each of these, whether it calls for the principles; without a hazard it does."""
    usable: tuple[Prompt, ...]
    """The relevant ones, and the whole test side."""
    left_out: tuple[LeftOut, ...]
    """Rows and prompts that are not usable, in the order of the steps."""
    cleaning: Cleaned
    """What cleaning has to say of them."""


def select(
    gathered: Gathered,
    cleaning: CleaningConfig | None = None,
    relevance: float = THRESHOLD,
    *,
    as_they_are: Collection[str] = (),
    told: Callable[[int], None] = lambda done: None,
) -> Selected:
    """Select the prompts that may be used.

    What is evaluated is not chosen by relevance: safety is rated on hazards of every kind.

    Args:
        gathered: what was read.
        cleaning: what is dropped.
        relevance: what a hazard prompt of the train side needs; see `contemplative_relevance`.
        as_they_are: ids of prompts whose relevance is not asked for.
        told: called now and then with how many prompts have been cleaned.
    """
    cleaned = clean(_counted(gathered.prompts, told), cleaning)
    leaking = _asked_by_evaluations(cleaned.prompts)
    prompts = with_categories(p for p in cleaned.prompts if p.id not in leaking)
    relevant = [
        p.category != "hazard" or p.id in as_they_are or calls_for_principles(p, relevance)
        for p in prompts
    ]
    usable: list[Prompt] = []
    irrelevant: list[LeftOut] = []
    for prompt, calls in zip(prompts, relevant, strict=True):
        if calls or prompt.split == "test":
            usable.append(prompt)
        else:
            irrelevant.append(
                LeftOut(id=prompt.id, source=prompt.source, step="relevance", reason=_NOT_RELEVANT)
            )
    left_out = (
        *(
            LeftOut(
                id=row.where, source=label, step="reading", reason=row.reason, detail=row.detail
            )
            for label, row in gathered.skipped
        ),
        *(
            LeftOut(id=p.id, source=p.source, step="cleaning", reason=p.reason, detail=p.detail)
            for p in cleaned.dropped
        ),
        *leaking.values(),
        *irrelevant,
    )
    return Selected(tuple(prompts), tuple(relevant), tuple(usable), left_out, cleaned)


def _counted(prompts: Sequence[Prompt], told: Callable[[int], None]) -> Iterator[Prompt]:
    for number, prompt in enumerate(prompts):
        told(number)
        yield prompt


def _asked_by_evaluations(prompts: Sequence[Prompt]) -> dict[str, LeftOut]:
    """Return those of the train side that a shipped evaluation asks, in the same words or nearly.

    Pairs of them would be refused by every training.
    """
    learned = {p.id: p for p in prompts if p.split != "test"}
    leaks = find_leaks(trained_on(learned.values()), shipped_evaluation_prompts())
    return {
        leak.trained_id: LeftOut(
            id=leak.trained_id,
            source=learned[leak.trained_id].source,
            step="cleaning",
            reason="evaluation_prompt",
            detail=f"{leak.evaluated_id} of {leak.source}, {leak.similarity:.2f}",
        )
        for leak in reversed(leaks)
    }
