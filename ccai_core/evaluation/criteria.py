"""The constitution's own criteria, one by one: an expected grade for each, by principle.

The judge grades the answer to a scenario from 1 to 5, by every criterion of its principle. The
grade is the mean over the judge's probabilities of the five digits; none is sampled
(`ccai_core/judges/rubric.py`). The scenario's answers are those of the poc measures: same calls.

    part = Criteria(scenarios, constitution, config.sampling, seed=0)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ccai_core.constitution import Constitution, Principle
from ccai_core.evaluation.counted import Report, counted
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
from ccai_core.evaluation.statistics import LEAST_ITEMS, mean_difference
from ccai_core.judges.rubric import expected_rating
from ccai_core.types import Call, Generate, Prompt, Sampling, assistant, fingerprint, user

BEST = 5
_RATING = Rating("judge", "grade", "Grades by criterion")
_ALL = "All criteria"


@dataclass(frozen=True)
class Criteria:
    """The part.

    Args:
        prompts: scenarios, each of one of the constitution's principles.
        constitution: its principles' criteria are what is graded.
        sampling: how answers are drawn; as in the poc measures, so that nothing is asked twice.
        seed: of resampling.
    """

    prompts: Sequence[Prompt]
    constitution: Constitution
    sampling: Sampling
    seed: int
    name: str = "criteria"
    rating: Rating = _RATING

    @property
    def calls(self) -> int:
        """None beside the answers that the poc measures ask for."""
        return 0

    @property
    def most_tokens(self) -> int:
        """None either."""
        return 0

    @property
    def judged(self) -> int:
        """One a scenario and criterion."""
        return len(list(self._keys()))

    @property
    def identity(self) -> Any:
        """Scenarios, criteria, sampling, seed."""
        prompts = [(p.id, p.text, p.principle) for p in self.prompts]
        criteria = [(p.id, p.criteria) for p in self.constitution.principles]
        return [prompts, criteria, self.sampling.model_dump(), BEST, self.seed]

    async def ask(self, engine: Generate, report: Report) -> Asked:
        """Let a model answer every scenario, or find its answer in the journal."""
        calls = [Call(messages=(user(p.text),), sampling=self.sampling) for p in self.prompts]
        completions = await counted("scenarios", (engine.generate(c) for c in calls), report)
        return {fingerprint(p.text): c for p, c in zip(self.prompts, completions, strict=True)}

    async def judge(self, judges: Judges, asked: Asked, report: Report) -> Scores:
        """Grade each answer by each criterion of the scenario's principle."""
        keys = list(self._keys())

        async def grade(prompt: Prompt, criterion: str) -> float | None:
            completion = asked[fingerprint(prompt.text)]
            if not answered(completion):
                return None
            exchange = (user(prompt.text), assistant(completion.text))
            return await expected_rating(judges.engine, exchange, criterion, BEST)

        grades = await counted("criteria judged", (grade(p, c) for _, p, c in keys), report)
        return {key: value for (key, _, _), value in zip(keys, grades, strict=True)}

    def belongs(self, key: str) -> str:
        """All criteria belong to the scenario that they are asked of."""
        return key.split("/", 2)[2]

    def findings(self, before: Outcome, after: Outcome) -> Findings:
        """Compare the mean grade, scenario by scenario, and show every criterion."""
        pairs, excluded = paired(before.scores, after.scores)
        of = {key: self.belongs(key) for key in pairs}
        graded, names = by_cluster(pairs, of), clusters(pairs, of)
        metric = mean_metric(_GRADES, graded, excluded, self.seed, names)
        return collected([metric], [self._table(pairs)] if pairs else [])

    def _table(self, pairs: Mapping[str, tuple[float, float]]) -> Table:
        rows: list[tuple[str | float | None, ...]] = []
        for principle in self.constitution.principles:
            for number, criterion in enumerate(principle.criteria):
                start = f"{principle.id}/{number}/"
                rows += self._row(
                    principle, criterion, [p for key, p in pairs.items() if key.startswith(start)]
                )
            of = {k: self.belongs(k) for k in pairs if k.startswith(f"{principle.id}/")}
            rows += self._row(principle, _ALL, by_cluster({k: pairs[k] for k in of}, of))
        return Table(
            id="contemplative.criteria",
            title=f"Grades by criterion, 1 to {BEST}",
            columns=(
                "Principle", "Criterion", "Baseline", "Trained", "Difference", "Low", "High",
                "Scenarios",
            ),
            rows=tuple(rows),
            note="Each grade is the mean over the judge's probabilities of the digits 1 to "
            f"{BEST}. Differences are paired by scenario; intervals (95%, bootstrap) are of one "
            "line each and not corrected for their number. The judge's level means little: no lean "
            "is taken off, for no labelled answers have grades.",
        )  # fmt: skip

    def _row(
        self, principle: Principle, criterion: str, graded: Sequence[tuple[float, float]]
    ) -> Iterator[tuple[str | float | None, ...]]:
        if not graded:
            return
        before, after = ([pair[side] for pair in graded] for side in (0, 1))
        means = [sum(values) / len(values) for values in (before, after)]
        ends: tuple[float | None, ...] = (means[1] - means[0], None, None)
        if len(graded) >= LEAST_ITEMS:
            change = mean_difference(before, after, self.seed)
            ends = change.estimate, change.low, change.high
        yield (principle.name, criterion, *means, *ends, len(graded))

    def _keys(self) -> Iterator[tuple[str, Prompt, str]]:
        for prompt in self.prompts:
            criteria = self.constitution.principle(prompt.principle or "").criteria
            for number, criterion in enumerate(criteria):
                yield f"{prompt.principle}/{number}/{fingerprint(prompt.text)}", prompt, criterion


_GRADES = About(
    "contemplative.criteria",
    "Grade by the constitution's criteria",
    "contemplative",
    f"The judge's expected grade from 1 to {BEST} over every criterion of the scenario's "
    "principle; intervals draw whole scenarios.",
    judged=True,
    unit="score",
)
