"""Grades are read and averaged as FastChat does; what it drops silently is counted here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ccai_core.errors import DataError
from ccai_core.evaluation.counted import silent
from ccai_core.evaluation.mt_bench import Helpfulness, average, read_grade
from ccai_core.evaluation.mt_bench_files import WRONG_REFERENCES, read_mt_bench
from ccai_core.evaluation.parts import Outcome
from ccai_core.types import Call
from tests.evaluation.fastchat_judgements import (
    FASTCHAT_AVERAGE,
    FASTCHAT_FIRST,
    FASTCHAT_GRADES,
    FASTCHAT_SECOND,
    judgements,
)
from tests.evaluation.planted import Writer, judges

CATEGORIES = ("writing", "math", "coding", "stem")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    questions = [
        {"question_id": 103 + i, "category": CATEGORIES[i % 4], "turns": [f"ask {i}", f"more {i}"]}
        for i in range(8)
    ]
    references = [
        {"question_id": q["question_id"], "choices": [{"turns": [f"ref {i}", f"more ref {i}"]}]}
        for i, q in enumerate(questions)
        if q["category"] in ("math", "coding")
    ]
    for name, rows in (("question", questions), ("reference_answer_gpt-4", references)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_grades_are_read_as_fastchat_reads_them() -> None:
    ours = [read_grade(text) for text in judgements()]
    assert [-1 if grade is None else grade for grade in ours] == list(FASTCHAT_GRADES)
    assert -1 in FASTCHAT_GRADES
    assert len(set(FASTCHAT_GRADES)) > 8


def test_averages_are_fastchats() -> None:
    ours = [read_grade(text) for text in judgements()]
    assert average(ours[::2]) == pytest.approx(FASTCHAT_FIRST, rel=1e-12)
    assert average(ours[1::2]) == pytest.approx(FASTCHAT_SECOND, rel=1e-12)
    assert average(ours) == pytest.approx(FASTCHAT_AVERAGE, rel=1e-12)
    assert average([None, None]) is None


def run(
    folder: Path,
    answer: Callable[[Call], str],
    judgement: Callable[[Call], str],
    prompts: Path | None = None,
) -> tuple[Helpfulness, Outcome, Writer]:
    part = Helpfulness(read_mt_bench(folder, prompts), tokens=64, seed=0)
    asked = asyncio.run(part.ask(Writer(answer), silent))
    scorer = judges(judgement)
    scores = asyncio.run(part.judge(scorer, asked, silent))
    assert isinstance(scorer.engine, Writer)
    return part, Outcome(asked, scores), scorer.engine


def test_the_second_turn_goes_on_from_the_models_own_answer(folder: Path) -> None:
    engine = Writer(lambda call: f"{call.messages[-1].content}!")
    part = Helpfulness(read_mt_bench(folder), tokens=64, seed=0)
    asked = asyncio.run(part.ask(engine, silent))
    assert len(engine.calls) == part.calls == len(asked) == 16
    second = next(c for c in engine.calls if c.messages[-1].content == "more 1")
    assert [m.content for m in second.messages] == ["ask 1", "ask 1!", "more 1"]
    temperatures = {c.messages[0].content: c.sampling.temperature for c in engine.calls}
    assert [temperatures[f"ask {i}"] for i in range(4)] == [0.7, 0.0, 0.0, 0.1]


def test_the_judge_sees_reference_and_conversation(folder: Path) -> None:
    _, _, engine = run(folder, lambda call: "{question} of mine", lambda _: "[[6]]")
    texts = [call.messages[-1].content for call in engine.calls]
    assert sum("ref 1" in text for text in texts) == 2
    assert not any("ref" in t.lower().split("question")[-1] for t in texts if "ask 0" in t)
    second = next(t for t in texts if "more 1" in t)
    assert second.index("ask 1") < second.index("more 1")
    assert "{question} of mine" in second, "braces in an answer stay as they are"
    assert all(call.sampling.temperature == 0 for call in engine.calls)


def test_better_answers_get_better_grades_and_failed_judgements_are_counted(folder: Path) -> None:
    def grade(call: Call) -> str:
        text = call.messages[-1].content
        if "more 2" in text:
            return "I cannot say."
        return "[[9]]" if "well done" in text else "[[4]]"

    part, before, _ = run(folder, lambda _: "bad", grade)
    _, after, _ = run(folder, lambda _: "well done", grade)
    found = part.findings(before, after)
    metric = found.metrics[0]
    assert (metric.baseline.estimate, metric.trained.estimate) == (4, 9)
    assert metric.n == 8, "a question whose second grade is missing counts by its first"
    assert metric.excluded == {"baseline_without_score": 1}
    rows = {row[0]: row for row in found.tables[0].rows}
    assert rows["All"] == ("All", 4.0, 9.0, 1, 1, 16)
    assert rows["Turn 2"][3] == 1
    assert rows["Coding"][5] == 4
    assert "1 (baseline) and 1 (trained) of 16 answers got no grade" in found.notes[0]


def test_doubtful_references_are_flagged(folder: Path) -> None:
    part, outcome, _ = run(folder, lambda _: "a", lambda _: "[[5]]")
    found = part.findings(outcome, outcome)
    # Of 103 to 110, 104 (math), 105 (coding) and 109 (coding) have a wrong reference and use it.
    assert "104, 105, 109" in found.notes[-1]
    assert ("Without doubtful references", 5.0, 5.0, 0, 0, 10) in found.tables[0].rows
    assert len(WRONG_REFERENCES) == 13


def test_an_empty_answer_gets_no_grade(folder: Path) -> None:
    _, outcome, engine = run(folder, lambda _: "  ", lambda _: "[[5]]")
    assert set(outcome.scores.values()) == {None}
    assert engine.calls == []


def test_fastchats_own_prompts_take_the_place_of_ours(folder: Path, tmp_path: Path) -> None:
    names = ("single-v1", "single-math-v1", "single-v1-multi-turn", "single-math-v1-multi-turn")
    path = tmp_path / "judge_prompts.jsonl"
    rows = [{"name": n, "system_prompt": "s", "prompt_template": f"{n}: {{answer}}"} for n in names]
    path.write_text("\n".join(map(json.dumps, rows)))
    _, _, engine = run(folder, lambda _: "a", lambda _: "[[5]]", path)
    assert {c.messages[-1].content.split(":")[0] for c in engine.calls} == set(names)
    path.write_text(json.dumps(rows[0]))
    with pytest.raises(DataError, match="has no judge prompt single-math-v1,"):
        read_mt_bench(folder, path)


def test_a_folder_without_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no question\.jsonl"):
        read_mt_bench(tmp_path)
