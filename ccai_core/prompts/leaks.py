"""Evaluation prompts that were trained on, found by their words, whatever their spelling and order.

Checked before every training (against the prompts that evaluations ask) and before every evaluation
(against the pairs of the model). Errors name prompts by id: texts may be harmful.

    refuse_leaks(trained_on(read_pairs(path)), shipped_evaluation_prompts())
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pydantic import Field

from ccai_core.config import Config
from ccai_core.errors import DataError
from ccai_core.prompts.cleaning import asked
from ccai_core.prompts.near_duplicates import NearDuplicates
from ccai_core.prompts.registry import SOURCES
from ccai_core.prompts.scenarios import shipped_adversarial, shipped_benign, shipped_scenarios
from ccai_core.prompts.splits import split_of
from ccai_core.types import Message, PreferencePair, Prompt

_SHIPPED = ("scenarios", "adversarial", "benign")
_MOST_LISTED = 5


class Trained(NamedTuple):
    """A text that a user says in training."""

    id: str
    source: str
    text: str


class Leak(Config):
    """An evaluation prompt that was trained on, or nearly."""

    trained_id: str = Field(description="Prompt id of the training pair.")
    evaluated_id: str = Field(description="Id of the evaluation prompt.")
    source: str = Field(description="Source of the evaluation prompt.")
    similarity: float = Field(description="1: the same words; see docs/prompts-cleaning.md.")


def trained_on(examples: Iterable[PreferencePair | Prompt]) -> tuple[Trained, ...]:
    """Return what users say in training: each turn, and each conversation as a whole, once."""
    found: dict[str, Trained] = {}
    for example in examples:
        id_, turns = _turns(example)
        said = [turn.content for turn in turns if turn.role == "user"]
        for text in dict.fromkeys((*said, asked(turns))):
            found.setdefault(text, Trained(id_, example.source, text))
    return tuple(found.values())


def _turns(example: PreferencePair | Prompt) -> tuple[str, Sequence[Message]]:
    if isinstance(example, Prompt):
        return example.id, example.turns
    return example.prompt_id, example.prompt


def find_leaks(trained: Iterable[Trained], evaluated: Iterable[Prompt]) -> list[Leak]:
    """Return each evaluation prompt with each training text that says it, or nearly.

    In the order of the evaluation prompts; of one, in the order of the training texts.
    """
    index, prompts = NearDuplicates(), list(evaluated)
    for place, prompt in enumerate(prompts):
        index.keep(str(place), asked(prompt.turns))
    found: dict[tuple[int, str], Leak] = {}
    for text in trained:
        for match in index.matches(text.text):
            place = int(match.key)
            # Several turns of one conversation may be alike: the first counts.
            leak = Leak(
                trained_id=text.id,
                evaluated_id=prompts[place].id,
                source=prompts[place].source,
                similarity=match.similarity,
            )
            found.setdefault((place, text.id), leak)
    return [found[key] for key in sorted(found, key=lambda key: key[0])]


def refuse_leaks(trained: Iterable[Trained], evaluated: Iterable[Prompt]) -> None:
    """Pass if no evaluation prompt was trained on.

    Raises:
        DataError: some were; lists them by id.
    """
    # One training text of each is enough to find it by.
    leaks = {
        (leak.source, leak.evaluated_id): leak for leak in find_leaks(trained, evaluated)[::-1]
    }
    if not leaks:
        return
    names = [
        f"{leak.evaluated_id} ({leak.source}) as {leak.trained_id}"
        for leak in list(leaks.values())[::-1]
    ]
    raise DataError(
        f"{len(names)} evaluation prompts are in the training pairs, in the same words or nearly, "
        f"so the evaluation would measure memory: {_some(names)}. Train on the train side of the "
        "prompts only, or take these out of the pairs or of the evaluation prompts."
    )


def refuse_held_out(pairs: Sequence[PreferencePair]) -> None:
    """Pass if pairs may be trained on: none is of a prompt that is kept for evaluations.

    Raises:
        DataError: some are; lists them by id.
    """
    refuse_test_side(pairs)
    refuse_leaks(trained_on(pairs), shipped_evaluation_prompts())


def shipped_evaluation_prompts() -> list[Prompt]:
    """Return all shipped prompts that evaluations ask."""
    shipped = (*shipped_scenarios(), *shipped_adversarial(), *shipped_benign())
    return [prompt for prompt in shipped if prompt.split == "test"]


def refuse_test_side(pairs: Iterable[PreferencePair]) -> None:
    """Pass if no pair is from the test side of a source of ours, or from one only to evaluate on.

    Pairs from elsewhere have half of their prompts on the test side by their words, and nobody
    evaluates on them: of those only what is really asked counts, which `refuse_leaks` tells.

    Raises:
        DataError: some are; lists their prompts by id.
    """
    held_out = {pair.prompt_id: pair.source for pair in pairs if _is_held_out(pair)}
    if held_out:
        names = [f"{id_} ({source})" for id_, source in held_out.items()]
        raise DataError(
            f"{len(names)} prompts of the training pairs are held out for evaluation: "
            f"{_some(names)}. Make pairs of the train side only, or take these out."
        )


def _is_held_out(pair: PreferencePair) -> bool:
    if pair.source in _SHIPPED:
        return split_of(pair.prompt[-1].content) == "test"
    info = SOURCES.get(pair.source)
    if info is None:
        return False
    return info.evaluation_only or split_of(pair.prompt[-1].content) == "test"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
