"""What can be shown to reviewers, and why other prompts are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ccai_core.errors import DataError
from ccai_core.evaluation.results import Example
from ccai_core.human_evaluation.answers import naming_themselves, read_answers
from ccai_core.prompts.splits import split_of
from tests.report_sample import evaluation

HELD_OUT = next(t for t in (f"Question {i}?" for i in range(99)) if split_of(t) == "test")
TRAINED = next(t for t in (f"Question {i}?" for i in range(99)) if split_of(t) != "test")


def lines(folder: Path, *rows: dict) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(prompt: str, model: str, answer: str, **more) -> dict:
    return {"prompt": prompt, "model": model, "answer": answer, **more}


def test_only_prompts_that_every_model_answered_and_none_trained_on_are_shown(tmp_path):
    path = lines(
        tmp_path,
        row(HELD_OUT, "a", "One way.\u2028", score=1.0),
        row(HELD_OUT.upper(), "b", " Another way. "),
        row(TRAINED, "a", "x"),
        row(TRAINED, "b", "y"),
        row("Held out otherwise", "a", "x", held_out=True, harmful=True),
        row("Held out otherwise", "b", "", held_out=True),
        row("The same", "a", "x", held_out=True),
        row("The same", "b", "x ", held_out=True),
        row("Only one", "a", "x", held_out=True),
    )
    shown, excluded = read_answers([path])
    assert [p.answers for p in shown] == [{"a": "One way.", "b": "Another way."}]
    assert shown[0].scores == {"a": 1.0}
    assert excluded == {
        "not held out: training may have seen it": 1,
        "an empty answer": 1,
        "all answers are the same": 1,
        "not answered by every model": 1,
    }


def test_an_evaluation_brings_both_models_with_the_judges_scores(tmp_path):
    def example(prompt: str, group: str = "contemplative") -> Example:
        return Example(
            group=group,
            label="Care",
            prompt=prompt,
            baseline="before",
            trained="after",
            baseline_score=0.2,
            trained_score=None,
        )

    hidden = "Members-only prompt x1, sha256 0123456789abcdef"
    given = evaluation().model_copy(
        update={"examples": (example("What now?"), example("And if?", "safety"), example(hidden))}
    )
    (tmp_path / "evaluation.json").write_text(given.model_dump_json(), encoding="utf-8")
    shown, excluded = read_answers([tmp_path])
    before, after = given.baseline_model, given.trained_model
    assert [p.answers for p in shown] == [{before: "before", after: "after"}] * 2
    assert [p.harmful for p in shown] == [False, True]
    assert shown[0].scores == {before: 0.2}
    assert excluded == {"members-only, without its text": 1}


@pytest.mark.parametrize(
    ("rows", "models", "message"),
    [
        ([row("Q", "a", "x")], (), "answers of 1"),
        ([row("Q", "a", "x"), row("Q", "b", "y")], ("a", "c"), "No answers of c. There are: a, b."),
        (
            [row("Q", "b", "x"), row("Q", "a", "x"), row("Q", "a", "y")],
            (),
            "line 3: a answered this prompt before",
        ),
        ([{"prompt": "Q", "model": "a"}], (), "line 1: answer: Field required"),
        ([row("Q", "a", "x", harmfull=True)], (), "unknown key 'harmfull'. Did you mean 'harmful'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, rows, models, message):
    with pytest.raises(DataError, match=message) as error:
        read_answers([lines(tmp_path, *rows)], models)
    assert "Q" not in str(error.value).replace("Question", "")


def test_answers_that_name_their_model_are_counted(tmp_path):
    path = lines(
        tmp_path,
        row(HELD_OUT, "org/Wiseowl-7b-instruct", "I am Wiseowl, a model."),
        row(HELD_OUT, "org/other-model", "An owl is wise, and this is a model."),
    )
    assert naming_themselves(read_answers([path])[0]) == 1
