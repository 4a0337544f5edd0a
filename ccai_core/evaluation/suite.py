"""The poc suite in phases, so that only one model is in memory at a time.

items = select_items(config, None, scenarios, adversarial, trained)
before = await answer(baseline_engine, items, config)
after = await answer(trained_engine, items, config)
judged = await judge_answers(judges, card, items, constitution, before, after)
result = compare(items, constitution, before, after, judged, config)     # see compare.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

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
from ccai_core.evaluation.counted import Report, counted, silent
from ccai_core.evaluation.items import EvaluationItems
from ccai_core.evaluation.judge import CONTENT_FREE, Judge, ScorePair
from ccai_core.evaluation.parts import Judges
from ccai_core.evaluation.results import JudgeCard
from ccai_core.types import Call, Completion, Prompt, user

__all__ = [
    "Answers",
    "Engine",
    "EvaluationConfig",
    "Judged",
    "ScorePair",
    "answer",
    "judge_answers",
]

_Pair = ScorePair | None
_LEAN_CRITERIA = 24


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


async def answer(
    engine: Engine, items: EvaluationItems, config: EvaluationConfig, report: Report = silent
) -> Answers:
    """Let one model answer all prompts, choose in all capability items and read the prose."""
    texts = items.texts
    calls = [Call(messages=(user(text),), sampling=config.sampling) for text in texts]
    completions = await counted("answers", (engine.generate(c) for c in calls), report)
    tasks = capability_items(config.capability_items)
    choices = await counted("capability", (answer_item(engine, i) for i in tasks), report)
    prose = (read_paragraph(engine, text) for text in perplexity_paragraphs())
    return Answers(
        model=engine.model,
        dtype=engine.dtype,
        completions=dict(zip(texts, completions, strict=True)),
        choices={item.id: choice for item, choice in zip(tasks, choices, strict=True)},
        paragraphs=tuple(await counted("perplexity", prose, report)),
    )


async def judge_answers(
    judges: Judges,
    card: JudgeCard,
    items: EvaluationItems,
    constitution: Constitution,
    baseline: Answers,
    trained: Answers,
    report: Report = silent,
) -> Judged:
    """Score both answers to every prompt that counts; no verdict on either leaves it out."""
    safety = [p for p in items.safety if exclusion(p, baseline, trained) is None]
    scenarios = [
        p
        for p in items.scenarios
        if exclusion(p, baseline, trained) is None and criteria_for(p, constitution)
    ]
    judge = await leaning_on_scenarios(judges.judge, scenarios)

    async def safe(text: str, request: str) -> float | None:
        return await judges.safety.p_safe(request, text)

    async def criteria(text: str, prompt: Prompt) -> float | None:
        return await judge.mean_score(prompt.text, text, criteria_for(prompt, constitution))

    async def both(prompt: Prompt, rate: Callable[[str], Awaitable[float | None]]) -> _Pair:
        texts = [a.completions[prompt.text].text for a in (baseline, trained)]
        before, after = await asyncio.gather(*map(rate, texts))
        return None if before is None or after is None else (before, after)

    asks = [
        *(both(p, partial(safe, request=p.text)) for p in safety),
        *(both(p, partial(criteria, prompt=p)) for p in scenarios),
    ]
    scores = await counted("judging", asks, report)
    rated = list(zip((*safety, *scenarios), scores, strict=True))
    return Judged(
        card=card,
        safety={p.text: s for p, s in rated[: len(safety)] if s is not None},
        contemplative={p.text: s for p, s in rated[len(safety) :] if s is not None},
    )


async def leaning_on_scenarios(judge: Judge, scenarios: Sequence[Prompt]) -> Judge:
    """Return the judge with a lean on the scenarios' own criteria, one for all of them.

    Each criterion is asked of one scenario only, so no labelled answers can give it a lean; a few
    of them on an empty exchange do.
    """
    questions = list(dict.fromkeys(criterion_question(c) for p in scenarios for c in p.criteria))
    if not questions:
        return judge
    sample = questions[:: max(1, len(questions) // _LEAN_CRITERIA)][:_LEAN_CRITERIA]
    odds = await asyncio.gather(*(judge.log_odds(*CONTENT_FREE, q) for q in sample))
    lean = sum(odds) / len(odds)
    return Judge(judge.engine, {**dict.fromkeys(questions, lean), **judge.leans})


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
    """Return what an answer is rated by, as yes/no questions.

    A scenario's own criteria, else those of its principle, else those of all principles.
    """
    if prompt.criteria:
        return tuple(map(criterion_question, prompt.criteria))
    if prompt.principle in constitution.ids:
        return constitution.principle(prompt.principle).criteria
    return tuple(c for principle in constitution.principles for c in principle.criteria)


def criterion_question(criterion: str) -> str:
    """Make a yes/no question of a criterion that says what a good answer does."""
    return f'Is this true of the answer: "{criterion}"?'
