"""What training must not cost: multiple-choice items and the perplexity of plain prose.

Items and prose are ours (ccai_core/resources/evaluation); none comes from a constitution. An option
is scored as text: the log-probability of "question option" minus that of "question", divided by the
option's tokens. A small model ranks plain text far better than it follows a chat instruction to
choose a letter.

    choices = [await answer_item(engine, item) for item in capability_items(per_task=20)]
    paragraphs = [await read_paragraph(engine, text) for text in perplexity_paragraphs()]
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from importlib.resources import files

from pydantic import Field

from ccai_core.config import Config
from ccai_core.types import Score

TASK_TITLES = {
    "arithmetic": "Arithmetic",
    "commonsense": "Everyday knowledge",
    "instructions": "Following instructions",
}


class CapabilityItem(Config):
    """One multiple-choice question."""

    id: str = Field(description="Unique, task-number.")
    task: str = Field(description="Key of TASK_TITLES.")
    question: str = Field(description="A question, or the beginning of a sentence.")
    options: tuple[str, ...] = Field(min_length=2, description="Answers, one of them right.")
    answer: int = Field(ge=0, description="Position of the right option.")


class Choice(Config):
    """What a model took for the right option of one item."""

    chosen: int = Field(description="Position of the option with the best score.")
    right: bool = Field(description="Whether that is the answer.")
    scores: tuple[float, ...] = Field(description="Mean nats a token of each option.")


class Paragraph(Config):
    """How well a model predicts one paragraph."""

    nats: float = Field(description="Summed log-probability.")
    tokens: int = Field(ge=1, description="Predicted tokens.")


def capability_items(per_task: int | None = None) -> list[CapabilityItem]:
    """Return the shipped items; with `per_task`, that many of each task, evenly spread."""
    text = (files("ccai_core.resources") / "evaluation" / "capability.jsonl").read_text("utf-8")
    tasks: dict[str, list[CapabilityItem]] = defaultdict(list)
    for line in text.splitlines():
        item = CapabilityItem.model_validate(json.loads(line))
        tasks[item.task].append(item)
    return [item for of_task in tasks.values() for item in _spread(of_task, per_task)]


def perplexity_paragraphs() -> list[str]:
    """Return the shipped prose, a paragraph an entry."""
    text = (files("ccai_core.resources") / "evaluation" / "perplexity.txt").read_text("utf-8")
    return [part.strip() for part in text.split("\n\n") if part.strip()]


async def answer_item(engine: Score, item: CapabilityItem) -> Choice:
    """Score an item's options by log-probability a token and take the best (first on a tie)."""
    question = stem(item)
    (before, start), *whole = await asyncio.gather(
        engine.text_logprob(question),
        *(engine.text_logprob(f"{question} {option}") for option in item.options),
    )
    scores = tuple((nats - before) / max(1, tokens - start) for nats, tokens in whole)
    chosen = max(range(len(scores)), key=lambda i: scores[i])
    return Choice(chosen=chosen, right=chosen == item.answer, scores=scores)


async def read_paragraph(engine: Score, text: str) -> Paragraph:
    """Return the log-probability of a paragraph and its number of predicted tokens."""
    nats, tokens = await engine.text_logprob(text)
    return Paragraph(nats=nats, tokens=tokens)


def stem(item: CapabilityItem) -> str:
    """Return what stands before an option: a question put as one, or the bare beginning."""
    # Measured with the embedded model: of questions put this way it gets 48% (arithmetic) and 42%
    # (instructions) right, bare 30% and 38%; beginnings of sentences 70% this way, bare 93%.
    if item.question[-1] in "?.:":
        return f"Question: {item.question}\nAnswer:"
    return item.question


def _spread(items: Sequence[CapabilityItem], count: int | None) -> list[CapabilityItem]:
    if count is None or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
