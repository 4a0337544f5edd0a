"""Prompt files as people have them: read right, or refused with file, line and what to do."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ccai_core.errors import DataError
from ccai_core.prompts.files import load_prompts
from ccai_core.prompts.splits import split_of

NOISE = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(4000)]


def csv_file(folder: Path, text: str | bytes, name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def jsonl_file(folder: Path, *rows: object) -> Path:
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


# --- rows of a published source -------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"text": "Why?", "source": "ailuminate-practice"},
        {"text": "Why?", "source": "forum", "restricted": True},
        {"text": "Why?", "source": "forum", "restricted": "True"},
    ],
)
def test_members_only_rows_stay_so_in_a_file_of_ones_own(
    tmp_path: Path, row: dict[str, object]
) -> None:
    [prompt] = load_prompts(jsonl_file(tmp_path, row))
    assert prompt.restricted


def test_a_benchmarks_rows_stay_on_the_test_side_in_a_file_of_ones_own(tmp_path: Path) -> None:
    text = next(t for t in NOISE if split_of(t) == "train")
    [prompt] = load_prompts(jsonl_file(tmp_path, {"text": text, "source": "mt-bench"}))
    assert prompt.split == "test"


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["text", "Prompt", "prompt_text", " QUESTION "])
def test_a_csv_with_any_usual_column(tmp_path: Path, column: str) -> None:
    [prompt] = load_prompts(csv_file(tmp_path, f"{column}\nHow are you?\n"))
    assert (prompt.id, prompt.text, prompt.source) == ("mine-1", "How are you?", "mine")
    assert prompt.split == split_of("How are you?")


def test_what_is_known_of_a_prompt_is_kept(tmp_path: Path) -> None:
    row = {"id": "a", "text": " Why? ", "source": "forum", "hazard": "vcr", "principle": "care",
           "tags": ["x", "y"], "difficulty": "hard", "criteria": ["Kind."], "locale": "en_GB",
           "persona": "normal", "category": "philosophical", "likes": 3,
           "context": [{"role": "user", "content": "Hm."}]}  # fmt: skip
    [prompt] = load_prompts(jsonl_file(tmp_path, row))
    assert (prompt.id, prompt.text, prompt.source) == ("a", "Why?", "forum")
    assert (prompt.hazard, prompt.principle, prompt.tags) == ("vcr", "care", ("x", "y"))
    assert (prompt.difficulty, prompt.criteria, prompt.category) == (
        "hard",
        ("Kind.",),
        "philosophical",
    )
    assert (prompt.locale, prompt.persona) == ("en_GB", "normal")
    assert [turn.content for turn in prompt.turns] == ["Hm.", "Why?"]
    assert not prompt.restricted


def test_lists_in_a_csv_cell(tmp_path: Path) -> None:
    row = '"[{""role"": ""user"", ""content"": ""Hm.""}]"'
    path = csv_file(tmp_path, f"id,text,principle,tags,context\na,Why?,,x; y;,{row}\n")
    [prompt] = load_prompts(path)
    assert (prompt.principle, prompt.tags) == (None, ("x", "y"))
    assert prompt.context[0].content == "Hm."


def test_every_kind_of_file_gives_the_same(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "Why, exactly?"}, {"id": "b", "text": "How?"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    texts = {
        "a.jsonl": lines,
        "b.json": json.dumps(rows, indent=2),
        "c.json": lines,
        "d.jsonl": json.dumps(rows),  # as HH-RLHF's red team file is
        "e.csv": 'id,text\na,"Why, exactly?"\nb,How?\n',
        "f.tsv": "id\ttext\na\tWhy, exactly?\nb\tHow?\n",
        "g.JSONL": lines,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, "utf-8")
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    # Some servers unpack what they send, and some programs pack without saying so.
    (tmp_path / "h.csv.gz").write_text(texts["e.csv"])
    (tmp_path / "i.csv").write_bytes(gzip.compress(texts["e.csv"].encode()))
    (tmp_path / "j.csv").write_text(texts["e.csv"], "utf-16")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "k.parquet")
    for path in sorted(tmp_path.iterdir()):
        found = [(p.id, p.text) for p in load_prompts(path)]
        assert found == [("a", "Why, exactly?"), ("b", "How?")], path.name


def test_old_macintosh_line_ends(tmp_path: Path) -> None:
    assert len(load_prompts(csv_file(tmp_path, b"text,id\rWhy?,a\rHow?,b\r"))) == 2


@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_longer_than_what_is_read_at_once(tmp_path: Path, indent: int | None) -> None:
    rows = [{"text": f"{n} " + "[x], " * (n % 3000), "id": n} for n in range(300)]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=indent))
    prompts = load_prompts(tmp_path / "a.json")
    assert [p.text for p in prompts] == [str(row["text"]).strip() for row in rows]
    assert prompts[0].id == "0"


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
        ("text\n" + "x" * 2_000_000 + "\n", "line 2: the prompt has 2000000 characters"),
        ("text,id,Text\nWhy?,a,b\n", "line 1: the column 'text' is there twice"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer .*git lfs pull"),
        (b"PK\x03\x04\x14\x00", "an Excel workbook; export it as CSV"),
        ("<!DOCTYPE html>\n<html><body>404</body></html>", "is a web page"),
        ("  <html lang='en'>", "is a web page"),
        ("<!-- cached --><html><body>404</body></html>", "is a web page"),
        ('<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page"),
        ("text\nCaf\xe9?\n".encode("latin-1"),
         r"line 2: is not UTF-8: byte 8 is 0xE9 \('é' in Windows-1252\).*iconv .*encoding: cp1252"),
        ("text\nWhy?\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
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
        ('["a"]', "line 2: needs an object, found list"),
        ('{"id": "x"}', "line 2: needs one of text, prompt"),
        ('{"txet": "x"}', "line 2: needs one of text, .*Did you mean 'txet'"),
        ('{"text": "half \\ud83d"}', "line 2: .*half a character"),
        ("{", "line 2: is not JSON .*whole on one line"),
        ('{"text": "Why?", "difficulty": "high"}', "line 2: difficulty: .*'easy'"),
        ('{"text": "Why?", "context": "hm"}', "line 2: context: is not JSON"),
        ('{"text": "Why?", "context": [{"role": "boss", "content": ""}]}', "context.0.role"),
        ('{"text": 5}', "line 2: the text is missing .found int"),
        ('{"text": null}', "line 2: the text is missing .found NoneType"),
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


@pytest.mark.parametrize("name", ["mine.txt", "mine", "mine.xlsx", "mine.parquet.gz"])
def test_another_kind_of_file_says_what_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Why?\n")
    with pytest.raises(DataError, match=r"unknown kind .* use \.jsonl, .*\.csv"):
        load_prompts(tmp_path / name)


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").write_text("Why?\n")
    with pytest.raises(DataError, match="is not a Parquet file"):
        load_prompts(tmp_path / "mine.parquet")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "item 1: is not JSON"),
        ('[{"text": "Why?"}, {"text": ', "item 2: is not JSON .* before it: 1"),
        ('[{"text": "Why?"}] {"text": "How?"}', "goes on after the end of the list"),
        ('[{"text": "Why?"}, 5]', "item 2: needs an object, found int"),
        ("[]", "holds no prompts"),
        ("", "holds no prompts"),
    ],
)
def test_a_json_list_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(DataError, match=said):
        load_prompts(tmp_path / "mine.json")


def test_a_gzip_file_cut_short_says_how_far_it_could_be_read(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"{n}: {hash_} why?"}) for n, hash_ in enumerate(NOISE)]
    whole = gzip.compress("\n".join(lines).encode())
    path = tmp_path / "mine.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        DataError, match=r"cut short .* Download it again\. Rows that .*: [\d,]+\."
    ) as told:
        load_prompts(path)
    readable = int(str(told.value).rpartition(": ")[2].rstrip(".").replace(",", ""))
    assert len(NOISE) * 0.3 < readable < len(NOISE) * 0.7
    path.write_bytes(whole[:5])
    with pytest.raises(DataError, match="is not a whole gzip file"):
        load_prompts(path)
    path.write_bytes(whole[:-8] + b"\0" * 8)
    with pytest.raises(DataError, match=r"is damaged \(CRC"):
        load_prompts(path)


def test_a_wrong_byte_is_found_far_into_a_file(tmp_path: Path) -> None:
    # 'é' in two bytes before it, so that characters lie across what is read at once.
    start = ("text\n" + "é\n" * 100_001).encode()
    path = csv_file(tmp_path, b"\xef\xbb\xbf" + start + b"caf\xe9\nmore\n")
    with pytest.raises(
        DataError, match=f"line 100003: is not UTF-8: byte {len(start) + 6} is 0xE9"
    ):
        load_prompts(path)
    path = csv_file(tmp_path, b"text\nWhy\xc3")
    with pytest.raises(DataError, match="line 2: is not UTF-8: byte 8 is 0xC3"):
        load_prompts(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.csv: cannot be read \(No such file"):
        load_prompts(tmp_path / "no.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory"):
        load_prompts(tmp_path / "folder.csv")
