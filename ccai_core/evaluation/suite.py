"""The poc suite in phases, so that only one model is in memory at a time.

items = select_items(config, None, scenarios, adversarial, trained)
before = await answer(baseline_engine, items, config)
after = await answer(trained_engine, items, config)
judged = await judge_answers(judge_engine, items, constitution, before, after)
result = compare(items, constitution, before, after, judged, config)     # see compare.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from pydantic import Field

from ccai_core.config import Config
from ccai_core.constitution import Constitution
from ccai_core.engines import Engine
from ccai_core.evaluation.capability import (
    Choice,
    Paragraph,
    answer_item,
    capability_items,
    perplexity_paragraphs,
    read_paragraph,
)
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.evaluation.items import EvaluationItems
from ccai_core.evaluation.judge import SAFETY_QUESTION, calibrate, labelled_replies
from ccai_core.evaluation.results import JudgeCard
from ccai_core.types import Call, Completion, Prompt, user

__all__ = ["Answers", "Engine", "EvaluationConfig", "Judged", "answer", "judge_answers"]

T = TypeVar("T")
Report = Callable[[str, int, int], None]
ScorePair = tuple[float, float]
_REPORT_EVERY_S = 0.5


class Answers(Config):
    """All that one model did."""

    model: str = Field(description="Model identity, name@revision.")
    dtype: str = Field(description="Weights' dtype in which everything was computed.")
    completions: dict[str, Completion] = Field(description="Answer to each prompt text.")
    choices: dict[str, Choice] = Field(description="Choice in each capability item, by its id.")
    paragraphs: tuple[Paragraph, ...] = Field(description="Of the perplexity text, in order.")


class Judged(Config):
    """The judge's scores as (baseline, trained), by prompt text, for prompts that count."""

    card: JudgeCard = Field(description="The judge and its calibration.")
    safety: dict[str, ScorePair] = Field(description="Probability that the answer is safe.")
    contemplative: dict[str, ScorePair] = Field(description="Mean probability over criteria.")


def silent(stage: str, done: int, total: int) -> None:
    """Report progress to nobody."""


async def answer(
    engine: Engine, items: EvaluationItems, config: EvaluationConfig, report: Report = silent
) -> Answers:
    """Let one model answer all prompts, choose in all capability items and read the prose."""
    texts = items.texts
    calls = [Call(messages=(user(text),), sampling=config.sampling) for text in texts]
    completions = await _counted("answers", (engine.generate(c) for c in calls), report)
    tasks = capability_items(config.capability_items)
    choices = await _counted("capability", (answer_item(engine, i) for i in tasks), report)
    prose = (read_paragraph(engine, text) for text in perplexity_paragraphs())
    return Answers(
        model=engine.model,
        dtype=engine.dtype,
        completions=dict(zip(texts, completions, strict=True)),
        choices={item.id: choice for item, choice in zip(tasks, choices, strict=True)},
        paragraphs=tuple(await _counted("perplexity", prose, report)),
    )


async def judge_answers(
    engine: Engine,
    items: EvaluationItems,
    constitution: Constitution,
    baseline: Answers,
    trained: Answers,
    report: Report = silent,
) -> Judged:
    """Calibrate the judge, then score both answers to every prompt that counts."""
    replies = labelled_replies()
    report("calibration", 0, 1)
    judge, card = await calibrate(engine, engine.model, constitution, replies)
    report("calibration", 1, 1)

    async def score(prompt: Prompt, questions: tuple[str, ...]) -> ScorePair:
        texts = [a.completions[prompt.text].text for a in (baseline, trained)]
        before, after = await asyncio.gather(
            *(judge.mean_score(prompt.text, text, questions) for text in texts)
        )
        return before, after

    safety = [p for p in items.safety if exclusion(p, baseline, trained) is None]
    scenarios = [
        p
        for p in items.scenarios
        if exclusion(p, baseline, trained) is None and criteria_for(p, constitution)
    ]
    asks = [
        *((p, (SAFETY_QUESTION,)) for p in safety),
        *((p, criteria_for(p, constitution)) for p in scenarios),
    ]
    scores = await _counted("judging", (score(p, questions) for p, questions in asks), report)
    return Judged(
        card=card,
        safety={p.text: s for p, s in zip(safety, scores, strict=False)},
        contemplative={p.text: s for p, s in zip(scenarios, scores[len(safety) :], strict=True)},
    )


def exclusion(prompt: Prompt, baseline: Answers, trained: Answers) -> str | None:
    """Say why a prompt does not count, for both models: an answer is missing in one of them.

    An answer that was cut off by the token limit counts: both models have the same limit, and
    small models rarely finish within it. How many were cut off is told in the notes.
    """
    for name, answers in (("baseline", baseline), ("trained", trained)):
        completion = answers.completions[prompt.text]
        if completion.finish_reason in {"error", "filtered"}:
            return f"{name}_{completion.finish_reason}"
        if not completion.text.strip():
            return f"{name}_empty"
    return None


def criteria_for(prompt: Prompt, constitution: Constitution) -> tuple[str, ...]:
    """Return the criteria of the principle a scenario was written for; without one, all of them."""
    if prompt.principle in constitution.ids:
        return constitution.principle(prompt.principle).criteria
    return tuple(c for principle in constitution.principles for c in principle.criteria)


async def _counted(stage: str, asks: Iterable[Awaitable[T]], report: Report) -> list[T]:
    """Ask everything at once (the engine batches) and report how much is through."""
    waiting = list(asks)
    done = 0

    async def one(ask: Awaitable[T]) -> T:
        nonlocal done
        result = await ask
        done += 1
        return result

    async def tell() -> None:
        # By the clock, not by the answer: answers arrive a whole batch at a time.
        while True:
            report(stage, done, len(waiting))
            await asyncio.sleep(_REPORT_EVERY_S)

    telling = asyncio.create_task(tell())
    try:
        results = await asyncio.gather(*map(one, waiting))
    finally:
        telling.cancel()
    report(stage, done, len(waiting))
    return list(results)
