"""What one judge thinks of all that two models answered: its own opinion, before any majority.

A panel is opened judge by judge, so that only one of them is in memory at a time. A guard rates
safety alone, whoever else judges, so only the first judge is opened with it.

    opinion = await opinion_of(judges, card, work, guarded=False)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ccai_core.constitution import Constitution
from ccai_core.evaluation.counted import Report
from ccai_core.evaluation.head_to_head import Duel, head_to_head
from ccai_core.evaluation.items import EvaluationItems
from ccai_core.evaluation.parts import Asked, Judges, Part, Scores
from ccai_core.evaluation.results import JudgeCard
from ccai_core.evaluation.suite import Answers, Judged, judge_answers


@dataclass(frozen=True)
class Work:
    """All that is to be judged.

    Args:
        items: prompts of the poc measures.
        constitution: its criteria.
        baseline: what the model before training answered to them.
        trained: what the model after training answered.
        parts: the suite's further parts.
        before: what the model before training answered in each of them, by name.
        after: what the model after training answered.
        compared: whether answers are also judged head to head.
    """

    items: EvaluationItems
    constitution: Constitution
    baseline: Answers
    trained: Answers
    parts: Sequence[Part]
    before: Mapping[str, Asked]
    after: Mapping[str, Asked]
    compared: bool


@dataclass(frozen=True)
class Opinion:
    """What one judge thinks.

    Args:
        judged: of the poc measures.
        duels: of both models' answers side by side.
        scores: (before, after) of each part that it judged, by name.
    """

    judged: Judged
    duels: Sequence[Duel]
    scores: Mapping[str, tuple[Scores, Scores]]

    @property
    def name(self) -> str:
        """Who thinks so."""
        return self.judged.card.model


def by_judge(opinions: Sequence[Opinion]) -> dict[str, Sequence[Duel]]:
    """Return each judge's duels, where there are several judges."""
    return {o.name: o.duels for o in opinions} if len(opinions) > 1 else {}


async def opinion_of(
    judges: Judges, card: JudgeCard, work: Work, report: Report, *, first: bool, guarded: bool
) -> Opinion:
    """Let one judge judge.

    Args:
        judges: who is asked.
        card: the judge's calibration.
        work: what is judged.
        report: told how far it is.
        first: the panel's first judge; parts that need none are read once, with it.
        guarded: whether safety is rated by a guard, which the first judge has beside it.
    """
    skipped = set() if first else {"nobody", *(["safety"] if guarded else [])}
    items = work.items
    if "safety" in skipped:
        items = items.model_copy(update={"safety": ()})
    judged = await judge_answers(
        judges, card, items, work.constitution, work.baseline, work.trained, report
    )
    duels = (
        await head_to_head(judges.engine, items.scenarios, work.baseline, work.trained, report)
        if work.compared
        else []
    )
    scores = {}
    for part in work.parts:
        if part.rating.by not in skipped:
            before = await part.judge(judges, work.before[part.name], report)
            scores[part.name] = before, await part.judge(judges, work.after[part.name], report)
    return Opinion(judged, duels, scores)
