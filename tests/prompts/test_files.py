"""Prompt files as people have them: read right, or refused with file, line and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ccai_core.errors import DataError
from ccai_core.prompts.files import load_prompts
from ccai_core.prompts.splits import split_of


def csv_file(folder: Path, text: str | bytes, name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def jsonl_file(folder: Path, *rows: object) -> Path:
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["text", "Prompt", "prompt_text", " QUESTION "])
def test_a_csv_with_any_usual_column(tmp_path: Path, column: str) -> None:
    [prompt] = load_prompts(csv_file(tmp_path, f"{column}\nHow are you?\n"))
    assert (prompt.id, prompt.text, prompt.source) == ("mine-1", "How are you?", "mine")
    assert prompt.split == split_of("How are you?")


def test_what_is_known_of_a_prompt_is_kept(tmp_path: Path) -> None:
    row = {"id": "a", "text": " Why? ", "source": "forum", "hazard": "vcr", "principle": "care",
           "tags": ["x", "y"], "difficulty": "high"}  # fmt: skip
    [prompt] = load_prompts(jsonl_file(tmp_path, row))
    assert (prompt.id, prompt.text, prompt.source) == ("a", "Why?", "forum")
    assert (prompt.hazard, prompt.principle, prompt.tags) == ("vcr", "care", ("x", "y"))
    [prompt] = load_prompts(csv_file(tmp_path, "id,text,principle\na,Why?,\n"))
    assert prompt.principle is None


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = csv_file(tmp_path, b"\xef\xbb\xbftext,id\r\nWhy?,a\r\nHow?,b\r\n")
    assert [(p.id, p.text) for p in load_prompts(path)] == [("a", "Why?"), ("b", "How?")]


def test_the_ending_may_be_in_capitals(tmp_path: Path) -> None:
    assert len(load_prompts(csv_file(tmp_path, "text\nWhy?\n", "MINE.CSV"))) == 1


def test_quoted_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = csv_file(tmp_path, 'id,text\na,"One, ""two""\nand three?"\n')
    assert load_prompts(path)[0].text == 'One, "two"\nand three?'


def test_blank_lines_are_nothing(tmp_path: Path) -> None:
    assert len(load_prompts(csv_file(tmp_path, "\ntext\n\nWhy?\n\n\nHow?\n\n"))) == 2
    path = tmp_path / "mine.jsonl"
    path.write_text('\n{"text": "Why?"}\n  \n{"text": "How?"}')
    assert [p.id for p in load_prompts(path)] == ["mine-1", "mine-2"]


def test_a_text_may_hold_what_looks_like_a_line_end(tmp_path: Path) -> None:
    text = "One\u2028two\x85three\x0cfour?"
    assert load_prompts(jsonl_file(tmp_path, {"text": text}))[0].text == text


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", r"line 1: no prompt column; .*found nothing"),
        ("name,value\na,b\n", "line 1: no prompt column; expected .*found name, value"),
        ("text\n", "holds no prompts"),
        ('text,id\nWhy?,a\n"  ",b\n', "line 3: the prompt is empty"),
        ('text\n"One\ntwo?"\n\n"<|im_start|>system"\n', "line 5: .*control token '<.im_start.>'"),
        ('id,text\na,"One\ntwo?"\nb,Hello, you\n', r"line 4: has 3 columns .* double quotes"),
        ("id,text\na\n", "line 2: has 1 columns where the header has 2"),
        ('text\nWhy?\n"Never closed\nand more\n', r"line 3: is not proper CSV"),
        ("id,text\na,Why?\na,How?\n", "two prompts have the id 'a'"),
        ("text\n" + "long " * 5000 + "\n", "line 2: the prompt has 24999 characters; most 20000"),
        ("text\n" + "x" * 140_000 + "\n", "line 2: is not proper CSV .field larger"),
        ("<!DOCTYPE html>\n<html><body>404</body></html>", "is a web page"),
        ("  <html lang='en'>", "is a web page"),
        ("text\nCaf\xe9?\n".encode("latin-1"), r"is not UTF-8 \(byte 8\); save it as UTF-8"),
        ("text\nWhy?\n".encode("utf-16"), "is not UTF-8"),
    ],
)  # fmt: skip
def test_a_csv_that_cannot_be_used_says_where_and_why(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    path = csv_file(tmp_path, content)
    with pytest.raises(DataError, match=said) as caught:
        load_prompts(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("just text", "line 2: is not JSON"),
        ('["a"]', "line 2: needs an object with one of text"),
        ('{"id": "x"}', "line 2: needs an object with one of text"),
        ('{"text": 5}', "line 2: 'text' must be a text, found 5"),
        ('{"text": null}', "line 2: 'text' must be a text, found None"),
        ('{"text": "Why?", "hazard": 5}', "line 2: hazard: .*string"),
        ('{"text": "Why?", "tags": [1]}', "line 2: tags.0: .*string"),
        ('{"text": ""}', "line 2: the prompt is empty"),
    ],
)
def test_a_jsonl_that_cannot_be_used_says_where_and_why(
    tmp_path: Path, row: str, said: str
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(f'{{"text": "Fine?"}}\n{row}\n')
    with pytest.raises(DataError, match=said):
        load_prompts(path)


@pytest.mark.parametrize("name", ["mine.txt", "mine", "mine.json", "mine.xlsx"])
def test_another_kind_of_file_says_what_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Why?\n")
    with pytest.raises(DataError, match=r"unknown kind .* use \.csv .* or \.jsonl"):
        load_prompts(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.csv: cannot be read \(No such file"):
        load_prompts(tmp_path / "no.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory"):
        load_prompts(tmp_path / "folder.csv")
