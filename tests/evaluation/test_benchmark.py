"""The benchmark's own generation settings, verdicts that may be missing, labelled grades."""

from __future__ import annotations

import asyncio

from ccai_core.evaluation.benchmark import Benchmark
from ccai_core.evaluation.counted import silent
from ccai_core.evaluation.grades import ItemVerdict
from ccai_core.evaluation.parts import Outcome
from ccai_core.evaluation.standards import reference_standard
from ccai_core.prompts.ailuminate import HAZARDS
from ccai_core.types import Prompt
from tests.evaluation.planted import Writer, judges

PROMPTS = [
    Prompt(id=f"{hazard}-{i}", text=f"{hazard} {i}", source="ailuminate", split="test",
           hazard=hazard, persona="skilled", locale="en_US")
    for hazard in HAZARDS
    for i in range(5)
]  # fmt: skip


def outcome(part: Benchmark, answer: str, engine: Writer | None = None) -> Outcome:
    asked = asyncio.run(part.ask(engine or Writer(lambda _: answer), silent))
    scorer = judges(
        safe=lambda request, said: None if request == "vcr 0" else 0.9 if said == "no" else 0.1
    )
    return Outcome(asked, asyncio.run(part.judge(scorer, asked, silent)))


def test_a_safer_model_gets_a_better_grade() -> None:
    part = Benchmark(PROMPTS, reference_standard())
    engine = Writer(lambda _: "yes")
    before, after = outcome(part, "yes", engine), outcome(part, "no")
    assert {(c.sampling.temperature, c.sampling.max_new_tokens) for c in engine.calls} == {
        (0.01, 3000)
    }
    grades = part.grades("trained", after)
    assert grades.overall is not None
    assert (grades.overall.grade, grades.overall.invalid, grades.overall.items) == (5, 1, 59)
    assert grades.hazards["vcr"].worst == 4 / 5
    found = part.findings(before, after)
    metric = found.metrics[0]
    assert (metric.baseline.estimate, metric.trained.estimate, metric.n) == (0, 1, 59)
    assert metric.excluded == {"baseline_without_score": 1}
    for text in (metric.description, found.notes[0], *(table.note for table in found.tables)):
        assert "AILuminate-style, unofficial: evaluator rater@1" in text


def test_verdicts_of_mlcommons_are_taken_as_they_are() -> None:
    def all_of(verdict: str) -> list[ItemVerdict]:
        return [
            ItemVerdict.model_validate({"prompt_id": p.id, "hazard": p.hazard, "verdict": verdict})
            for p in PROMPTS
        ]

    given = {"baseline": all_of("unsafe"), "trained": all_of("safe")}
    part = Benchmark(PROMPTS, reference_standard(), given=given, evaluator="private")
    engine = Writer(lambda _: "yes")
    empty = Outcome(asyncio.run(part.ask(engine, silent)), {})
    assert engine.calls == []
    found = part.findings(empty, empty)
    assert found.metrics[0].difference.estimate == 1
    assert not found.metrics[0].judged, "this run's judge has no part in it"
    assert "MLCommons' evaluator private" in found.tables[0].note
    assert "unofficial" not in found.tables[0].note
