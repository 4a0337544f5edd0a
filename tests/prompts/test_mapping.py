"""Data of one's own by a YAML: columns found, values fixed, mistakes said with what is meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ccai_core.errors import CCAIError, ConfigError, DataError
from ccai_core.prompts.sources import Loaded, read_source


def mapping(folder: Path, text: str, name: str = "forum.yaml") -> str:
    path = folder / name
    path.write_text(text, "utf-8")
    return str(path)


def data(folder: Path, *rows: object, name: str = "posts.jsonl") -> None:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def read(folder: Path, text: str) -> Loaded:
    return read_source(mapping(folder, text))


def test_columns_values_and_terms(tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text(
        "Post,Body,Label,Kind\n7,Why?,vcr,a; b\n8,How?,,\n", "utf-8"
    )
    loaded = read(
        tmp_path,
        """
file: posts.csv
columns: {text: body, id: POST, hazard: Label, tags: kind}
values: {category: practical_advice, hazard: ncr, locale: en_GB, tags: [forum]}
source: my-forum
licence: CC0-1.0
attribution: Us.
restricted: true
harmful: true
""",
    )
    first, second = loaded.prompts
    assert (first.id, first.text, first.source) == ("7", "Why?", "my-forum")
    assert (first.hazard, second.hazard) == ("vcr", "ncr")  # a column wins where it is not empty
    assert (first.tags, second.tags) == (("a", "b", "forum"), ("forum",))
    assert (first.category, first.locale, first.restricted) == ("practical_advice", "en_GB", True)
    source = loaded.source
    assert (source.name, source.licence, source.attribution) == ("my-forum", "CC0-1.0", "Us.")
    assert source.restricted
    assert source.harmful


def test_without_a_name_and_ids_it_is_called_by_the_yaml(tmp_path: Path) -> None:
    data(tmp_path, {"Body": "Why?"}, {"body": "How?"})
    loaded = read(tmp_path, "file: posts.jsonl\ncolumns: {text: body}\n")
    assert [(p.id, p.source) for p in loaded.prompts] == [
        ("forum-1", "forum"),
        ("forum-2", "forum"),
    ]
    assert loaded.source.licence == "NOASSERTION"


def test_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_bytes("text\nCafé – oder?\n".encode("cp1252"))
    loaded = read(tmp_path, "file: posts.csv\nencoding: cp1252\ncolumns: {text: text}\n")
    assert loaded.prompts[0].text == "Café – oder?"


@pytest.mark.parametrize("as_text", [False, True])
def test_conversations_as_lists_of_turns(tmp_path: Path, as_text: bool) -> None:
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "And how?"},
        {"role": "assistant", "content": "Thus."},
    ]
    bad = [{"from": "user", "value": "Why?"}]
    rows = [{"talk": json.dumps(each) if as_text else each} for each in (turns, bad, None)]
    data(tmp_path, *rows)
    text = "file: posts.jsonl\ncolumns: {text: talk}\nreading: messages\n"
    loaded = read(tmp_path, text)
    assert [p.text for p in loaded.prompts] == ["Why?"]
    assert [(s.where, s.reason) for s in loaded.skipped] == [
        ("posts.jsonl line 2", "no text"),
        ("posts.jsonl line 3", "no text"),
    ]
    [prompt] = read(tmp_path, text + "turn: last\n").prompts
    assert [turn.content for turn in prompt.turns] == ["Be kind.", "Why?", "So.", "And how?"]


def test_a_hub_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `datasets` takes a folder of that name for the hub's, so this is its own reading of files.
    folder = tmp_path / "someone" / "talks" / "part"
    folder.mkdir(parents=True)
    talk = "\n\nHuman: Why: so?\n\nAssistant: So."
    data(folder, {"chosen": talk, "rejected": talk}, name="train.jsonl")
    monkeypatch.chdir(tmp_path)
    text = (
        "hub: someone/talks\ndata_dir: part\ncolumns: {text: CHOSEN}\nreading: transcript\n"
        "licence: MIT\n"
    )
    loaded = read(tmp_path, text)
    assert [(p.id, p.text) for p in loaded.prompts] == [("forum-1", "Why: so?")]
    assert loaded.source.title == "someone/talks"
    with pytest.raises(ConfigError, match=r"columns.id: .*no column 'chose'. Did you mean 'chosen"):
        read(tmp_path, text.replace("CHOSEN", "chosen, id: chose"))
    with pytest.raises(DataError, match=r"someone/talks cannot be read .*split"):
        read(tmp_path, text + "split: nowhere\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "columns: Field required"),
        ("file: posts.csv\nhub: a/b\ncolumns: {text: text}", "give either `file` or `hub`"),
        ("columns: {text: text}", "give either `file` or `hub`"),
        ("file: posts.csv\ncolumns: {}", "columns.text: Field required"),
        ("file: posts.csv\ncolumns: {text: text, hazrad: x}", "'columns.hazrad'.*mean 'hazard'"),
        ("file: posts.csv\ncolumns: {text: text}\nlicense: MIT", "'license'.*mean 'licence'"),
        ("file: posts.csv\ncolumns: {text: text}\nencoding: cp9", "encoding: no such encoding"),
        ("file: posts.csv\ncolumns: {text: text}\nvalues: {category: fun}", "'hazard', 'ethical"),
        ("file: posts.csv\ncolumns: {text: txet}", "columns.text: .*no column .txet.*mean .text"),
        ("file: posts.csv\ncolumns: {text: text, id: nr}", "columns.id: .*no column 'nr'. Valid: "),
        ("file: more.jsonl\ncolumns: {text: txet}", "none of its 1 rows .*no 'txet'. Did you mean"),
        ("file: none.csv\ncolumns: {text: text}", "none.csv: cannot be read"),
        ("file: [posts.csv\n", "line 2: is not valid YAML"),
    ],
)  # fmt: skip
def test_a_mapping_that_cannot_be_used_says_why(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "posts.csv").write_text("text,label\nWhy?,a\n")
    data(tmp_path, {"text": "Why?"}, name="more.jsonl")
    with pytest.raises(CCAIError, match=said) as told:
        read(tmp_path, text)
    assert "forum.yaml" in str(told.value) or "none.csv" in said
