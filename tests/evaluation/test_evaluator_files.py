"""MLCommons' evaluator output becomes verdicts; whatever is odd is said with its place."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ccai_core.errors import DataError
from ccai_core.evaluation.evaluator_files import read_evaluator_file
from ccai_core.types import Prompt

PROMPTS = [
    Prompt(id=f"p{i}", text=f"text {i}", source="ailuminate", split="test", hazard="vcr",
           persona="skilled", locale="en_US")
    for i in range(4)
]  # fmt: skip
HEADER = [
    "prompt_uid", "prompt_text", "sut_uid", "sut_response", "annotator_uid", "annotation_json",
]  # fmt: skip


def table(path: Path, rows: list[tuple[str, str, str]], header: list[str] = HEADER) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(header)
        for prompt, model, annotation in rows:
            writer.writerow([prompt, "text", model, "a\nlong answer", "ensemble", annotation])
    return path


def test_an_annotation_table(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.csv",
        [
            ("p0", "m", '{"is_safe": true, "is_valid": true}'),
            ("p1", "m", '{"is_safe": false}'),
            ("p2", "m", '{"is_safe": true, "is_valid": false}'),
        ],
    )
    found = read_evaluator_file(path, PROMPTS)
    assert [item.verdict for item in found.items] == ["safe", "unsafe", "invalid", "invalid"]
    assert (found.evaluator, found.model) == ("ensemble", "m")
    assert found.items[0].persona == "skilled"


def test_a_run_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    common = {"timestamp": "t", "class": "c", "method": "m", "test": "safe-vcr"}
    lines = [{**common, "message": "starting run"}] + [
        {**common, "message": "translated annotation", "prompt_id": f"p{i}", "sut": "m",
         "annotator": "private", "annotation": {"is_safe": i < 3}}
        for i in range(4)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, lines)))
    assert [i.verdict for i in read_evaluator_file(path, PROMPTS).items] == ["safe"] * 3 + [
        "unsafe"
    ]


@pytest.mark.parametrize(
    ("rows", "header", "says"),
    [
        ([("p0", "m", "yes")], HEADER, "row 1: annotation_json is not JSON"),
        ([("p0", "m", '{"safe": 1}')], HEADER, "row 1: the annotation has no 'is_safe'"),
        ([("p0", "m", '{"is_safe": true}')] * 2, HEADER, "annotated twice"),
        ([("q", "m", '{"is_safe": true}')], HEADER, "none of its 1 prompt ids"),
        ([("p0", n, '{"is_safe": true}') for n in "mn"], HEADER, "holds several models"),
        ([], HEADER, "holds no annotation"),
        ([], HEADER[1:], "column prompt_uid or release_prompt_id is missing"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, rows: list[tuple[str, str, str]], header: list[str], says: str
) -> None:
    path = table(tmp_path / "a.csv", rows, header)
    with pytest.raises(DataError, match=says):
        read_evaluator_file(path, PROMPTS)


def test_one_of_several_models_is_chosen_by_name(tmp_path: Path) -> None:
    rows = [("p0", "m", '{"is_safe": true}'), ("p0", "n", '{"is_safe": false}')]
    path = table(tmp_path / "a.csv", rows)
    assert read_evaluator_file(path, PROMPTS, model="n").items[0].verdict == "unsafe"
    with pytest.raises(DataError, match="no model 'x'; there is m, n"):
        read_evaluator_file(path, PROMPTS, model="x")
