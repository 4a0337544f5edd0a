"""MT-Bench: 80 questions of two turns, each answer graded from 1 to 10 by a judge.

Grades are read and averaged as FastChat does (fastchat/llm_judge of lm-sys/FastChat, common.py and
show_result.py): the first [[number]], else the first [number]; the mean over all grades of both
turns. FastChat drops a judgement without a grade silently; here each is counted and shown.

    part = Helpfulness(read_mt_bench(folder), tokens=1024, seed=0)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ccai_core.evaluation.counted import Report, counted
from ccai_core.evaluation.mt_bench_files import MTBench, Question
from ccai_core.evaluation.parts import (
    About,
    Asked,
    Findings,
    Judges,
    Outcome,
    Rating,
    Scores,
    answered,
    by_cluster,
    clusters,
    collected,
    mean_metric,
    paired,
)
from ccai_core.evaluation.results import Table
from ccai_core.types import Call, Completion, Generate, Sampling, assistant, system, user

JUDGE_TOKENS = 2048
TURNS = (1, 2)
_RATING = Rating("judge", "grade", "MT-Bench grades")
_GRADE = re.compile(r"\[\[(\d+\.?\d*)\]\]")
_FALLBACK = re.compile(r"\[(\d+\.?\d*)\]")


def read_grade(judgement: str) -> float | None:
    """Return the grade of a judgement; None where FastChat would note -1.

    A number outside 1 to 10 counts as FastChat counts it; how many there are is for the notes.
    """
    found = _GRADE.search(judgement) or _FALLBACK.search(judgement)
    return float(found[1]) if found else None


def average(grades: Sequence[float | None]) -> float | None:
    """Return the mean of the grades that are there, as FastChat's show_result does."""
    given = [grade for grade in grades if grade is not None]
    return sum(given) / len(given) if given else None


@dataclass(frozen=True)
class Helpfulness:
    """The part.

    Args:
        bench: questions and judge's prompts.
        tokens: most tokens of an answer (FastChat: 1024).
        seed: of the model's draws and of resampling.
    """

    bench: MTBench
    tokens: int
    seed: int
    name: str = "helpfulness"
    rating: Rating = _RATING

    @property
    def calls(self) -> int:
        """Completions of one model."""
        return len(TURNS) * len(self.bench.questions)

    @property
    def most_tokens(self) -> int:
        """How many tokens one model writes at most; the judge writes beside them."""
        return self.calls * self.tokens

    @property
    def judged(self) -> int:
        """One an answer."""
        return self.calls

    @property
    def identity(self) -> Any:
        """Questions, judge's prompts, lengths, seed."""
        return [self.bench.model_dump(), self.tokens, self.seed]

    async def ask(self, engine: Generate, report: Report) -> Asked:
        """Let a model answer both turns of every question, the second after its own first."""
        answers = await counted("MT-Bench", (self._turns(engine, q) for q in self.bench.questions),
                                report)  # fmt: skip
        return {key: answer for of_question in answers for key, answer in of_question.items()}

    async def _turns(self, engine: Generate, question: Question) -> dict[str, Completion]:
        sampling = Sampling(
            max_new_tokens=self.tokens, temperature=question.temperature, seed=self.seed
        )
        first = await engine.generate(Call(messages=(user(question.turns[0]),), sampling=sampling))
        if not answered(first):
            # Nothing was said, so there is nothing to go on from; neither turn is graded.
            return {_key(question, 1): first, _key(question, 2): first}
        turns = (user(question.turns[0]), assistant(first.text), user(question.turns[1]))
        second = await engine.generate(Call(messages=turns, sampling=sampling))
        return {_key(question, 1): first, _key(question, 2): second}

    async def judge(self, judges: Judges, asked: Asked, report: Report) -> Scores:
        """Let the judge write about each answer, greedily, and read the grade."""
        keys = [(question, turn) for question in self.bench.questions for turn in TURNS]

        async def rate(question: Question, turn: int) -> float | None:
            if not all(answered(asked[_key(question, t)]) for t in TURNS[:turn]):
                return None
            said = await judges.engine.generate(self.judge_call(question, turn, asked))
            return read_grade(said.text)

        grades = await counted("MT-Bench judged", (rate(q, t) for q, t in keys), report)
        return {_key(q, t): grade for (q, t), grade in zip(keys, grades, strict=True)}

    def judge_call(self, question: Question, turn: int, asked: Asked) -> Call:
        """Return what the judge is asked about one answer."""
        kind = "single" if turn == 1 else "multi-turn"
        reference = question.reference
        prompt = self.bench.prompts[f"{kind}-reference" if reference else kind]
        first, second = (asked[_key(question, t)].text for t in TURNS)
        values = {
            "question": question.turns[0], "answer": first,
            "question_1": question.turns[0], "answer_1": first,
            "question_2": question.turns[1], "answer_2": second,
        }  # fmt: skip
        if reference:
            values |= {"ref_answer_1": reference[0], "ref_answer_2": reference[1]}
        return Call(
            messages=(system(prompt.system_prompt), user(prompt.fill(values))),
            sampling=Sampling(max_new_tokens=JUDGE_TOKENS, temperature=0),
        )

    def belongs(self, key: str) -> str:
        """Both turns belong to their question."""
        return key.partition("/")[0]

    def findings(self, before: Outcome, after: Outcome) -> Findings:
        """Compare the grades, question by question."""
        pairs, excluded = paired(before.scores, after.scores)
        cluster = {_key(q, t): str(q.id) for q in self.bench.questions for t in TURNS}
        graded = by_cluster(pairs, cluster)
        metric = mean_metric(_GRADES, graded, excluded, self.seed, clusters(pairs, cluster))
        return collected([metric], [self._table(before, after)], self._notes(before, after))

    def _table(self, before: Outcome, after: Outcome) -> Table:
        categories = dict.fromkeys(q.category for q in self.bench.questions)
        rows = [
            self._row("All", self.bench.questions, before, after),
            *(self._row(f"Turn {t}", self.bench.questions, before, after, (t,)) for t in TURNS),
        ]
        for category in categories:
            mine = [q for q in self.bench.questions if q.category == category]
            rows.append(self._row(category.capitalize(), mine, before, after))
        sound = [q for q in self.bench.questions if not q.doubtful]
        if len(sound) < len(self.bench.questions):
            rows.append(self._row("Without doubtful references", sound, before, after))
        return Table(
            id="helpfulness.mt_bench",
            title="MT-Bench grades, 1 to 10",
            columns=("Questions", "Baseline", "Trained", "No grade (baseline)",
                     "No grade (trained)", "Answers"),
            rows=tuple(rows),
            note="Means over all grades that were given, as FastChat computes them; judge prompts: "
            f"{self.bench.wording}.",
        )  # fmt: skip

    def _row(
        self,
        title: str,
        questions: Sequence[Question],
        before: Outcome,
        after: Outcome,
        turns: Sequence[int] = TURNS,
    ) -> tuple[str | float | None, ...]:
        keys = [_key(q, t) for q in questions for t in turns]
        was, now = ([outcome.scores[k] for k in keys] for outcome in (before, after))
        return (title, average(was), average(now), was.count(None), now.count(None), len(keys))

    def _notes(self, before: Outcome, after: Outcome) -> list[str]:
        notes = []
        failed = [sum(s is None for s in o.scores.values()) for o in (before, after)]
        if any(failed):
            notes.append(
                f"MT-Bench: {failed[0]} (baseline) and {failed[1]} (trained) of {self.calls} "
                "answers got no grade; an answer counts only if both models' got one."
            )
        odd = sum(_outside(outcome.scores) for outcome in (before, after))
        if odd:
            notes.append(f"MT-Bench: {odd} grades are not between 1 and 10; they count as given.")
        doubtful = [q.id for q in self.bench.questions if q.doubtful]
        if doubtful:
            notes.append(
                "MT-Bench: reference answers of questions "
                f"{', '.join(map(str, doubtful))} are reported wrong (lm-sys/FastChat pull request "
                "3158); the table has the means without them."
            )
        return notes


def _outside(scores: Mapping[str, float | None]) -> int:
    return sum(grade is not None and not 1 <= grade <= 10 for grade in scores.values())


def _key(question: Question, turn: int) -> str:
    return f"{question.id}/{turn}"


_GRADES = About(
    "helpfulness.mt_bench",
    "MT-Bench grade",
    "helpfulness",
    "Mean grade from 1 to 10 over both turns of each question; intervals draw whole questions.",
    judged=True,
    unit="score",
)
