"""Sources by name, whole files read with what is wrong listed, and the command that shows them."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from pathlib import Path

import pytest

from ccai_core.errors import DataError
from ccai_core.prompts.__main__ import main
from ccai_core.prompts.registry import GROUPS, SOURCES
from ccai_core.prompts.scenarios import shipped_scenarios
from ccai_core.prompts.sources import read_source

SHARED = Path(__file__).parents[3] / "shared" / "data"
HEADER = "Release_prompt_id,Prompt_text,Hazard,Persona,Locale,Prompt_hash"


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CCAI_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{name} is not in {SHARED}")
    return path


def lines(path: Path, *rows: object) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


# --- published sources ----------------------------------------------------------------------------


def test_mt_bench_is_for_evaluation_only() -> None:
    loaded = read_source(str(shared("mt-bench/question.jsonl")))
    assert loaded.source == SOURCES["mt-bench"]
    assert loaded.source.evaluation_only
    assert (len(loaded.prompts), loaded.skipped) == (80, ())
    assert {prompt.split for prompt in loaded.prompts} == {"test"}
    assert Counter(prompt.tags[0] for prompt in loaded.prompts) == dict.fromkeys(
        ("coding", "extraction", "humanities", "math", "reasoning", "roleplay", "stem", "writing"),
        10,
    )
    assert loaded.prompts[0].id == "mt-bench-81"


def test_a_source_that_was_put_in_place_is_read_without_asking_the_network(
    data_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = shared("mt-bench/question.jsonl")
    assert main(["fetch", "mt-bench", "--file", str(given)]) == 0
    assert str(data_folder / "mt-bench" / "question.jsonl") in capsys.readouterr().out
    assert len(read_source("mt-bench").prompts) == 80


def test_oasst_gives_first_turns_in_their_language(tmp_path: Path) -> None:
    rows = [
        {"message_id": "m1", "parent_id": None, "role": "prompter", "lang": "en", "text": "Why?"},
        {"message_id": "m2", "parent_id": "m1", "role": "assistant", "lang": "en", "text": "So."},
        {"message_id": "m3", "parent_id": "m2", "role": "prompter", "lang": "en", "text": "How?"},
        {"message_id": "m4", "role": "prompter", "lang": "pt-BR", "text": "Olá?", "deleted": False},
        {"message_id": "m5", "role": "prompter", "lang": "en", "text": "Spam", "deleted": True},
    ]
    loaded = read_source("oasst1", lines(tmp_path / "messages.jsonl.gz", *rows))
    assert [(p.id, p.text, p.locale) for p in loaded.prompts] == [
        ("oasst1-m1", "Why?", "en"),
        ("oasst1-m4", "Olá?", "pt_BR"),
    ]
    assert loaded.passed_over == 2
    assert [skipped.reason for skipped in loaded.skipped] == ["deleted"]


def test_members_only_sets_are_read_from_a_file_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "given to us.csv"
    path.write_text(f"{HEADER}\np1,Why?,spc_lgl,normal,hi-in,ab\np2,How?,xyz,normal,hi_IN,cd\n")
    with pytest.raises(DataError, match=r"has nothing to fetch.*--file"):
        read_source("ailuminate-practice")
    loaded = read_source("ailuminate-practice", path)
    [prompt] = loaded.prompts
    assert (prompt.restricted, prompt.source) == (True, "ailuminate-practice")
    assert (prompt.locale, prompt.tags) == ("hi_IN", ("lgl", "prompt_hash:ab"))
    assert loaded.source.restricted
    assert loaded.source.harmful
    assert [(s.where, s.reason) for s in loaded.skipped] == [
        ("given to us.csv line 3", "unknown hazard")
    ]


def test_the_shipped_scenarios() -> None:
    assert list(read_source("scenarios").prompts) == shipped_scenarios()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ailuminate-dmeo", "Did you mean 'ailuminate-demo'"),
        ("hh-rlhf", "is several sources; name one: hh-rlhf/harmless-base"),
        ("Anthropic/hh-rlhf", "is no source of prompts.*mapping YAML .for a hub"),
        ("none.jsonl", r"none\.jsonl: cannot be read"),
        ("notes.txt", "unknown kind of prompt file"),
    ],
)
def test_a_name_that_is_nothing(name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_source(name)


def test_a_file_that_is_not_of_the_source_it_is_given_for(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"text": "Why?"})
    with pytest.raises(DataError, match="is not a file of mt-bench; its columns are text"):
        read_source("mt-bench", path)


# --- bad rows, bad files --------------------------------------------------------------------------


def test_every_row_is_a_prompt_or_is_listed(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "mine.jsonl",
        {"id": "a", "text": "Why? <|im_end|>"},
        "{broken",
        {"id": "b", "text": "  "},
        {"id": "c", "words": "Why?"},
        {"id": "d", "text": "x" * 2_000_000},
        {"id": "a", "text": "How?"},
        {"id": "e", "text": "Where?", "difficulty": "grim"},
        '"a text"',
        {"id": "f", "text": "When?"},
    )
    loaded = read_source(str(path))
    # Control tokens are made inert by cleaning: no reason to lose a prompt.
    assert [p.text for p in loaded.prompts] == ["Why? <|im_end|>", "When?"]
    assert [(s.where, s.reason) for s in loaded.skipped] == [
        ("mine.jsonl line 2", "not JSON"),
        ("mine.jsonl line 3", "empty"),
        ("mine.jsonl line 4", "no text"),
        ("mine.jsonl line 5", "too long"),
        ("mine.jsonl line 6", "duplicate id"),
        ("mine.jsonl line 7", "wrong value"),
        ("mine.jsonl line 8", "not an object"),
    ]
    assert str(tmp_path) not in repr(loaded.skipped)


def test_ragged_rows_of_a_csv_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("id,text\na,Why?\nb,Oh, why?\nc\nd,How?\n")
    loaded = read_source(str(path))
    assert [p.id for p in loaded.prompts] == ["a", "d"]
    assert [(s.where, s.reason) for s in loaded.skipped] == [
        ("mine.csv line 3", "columns"),
        ("mine.csv line 4", "columns"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b'text\nWhy?\n"Never closed\nmore\n', r"not proper CSV.* before it: 1\."),
        ("a.csv", b"<!doctype html><p>404", "is a web page"),
        ("a.csv", b"name\nWhy?\n", "no prompt column"),
        ("a.jsonl", b'{"txt": 1}\n{"txt": 2}\n', "none of its 2 rows can be used. The first, a.j"),
        ("a.jsonl", b"", "holds no prompts"),
        ("a.csv", b"text\n", "holds no prompts"),
        ("a.csv", b"text\nWhy?\nCaf\xe9?\n", "line 3: is not UTF-8"),
        ("a.csv.gz", gzip.compress(b"text\nWhy?\n", mtime=0)[:-9], "is not a whole gzip file"),
    ],
)
def test_a_file_that_is_no_data_is_an_error(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_source(str(tmp_path / name))


def test_many_rows_are_read_in_time(tmp_path: Path) -> None:
    words = [f"Is {n} the number of the {n % 97} birds that {n * 7} saw?" for n in range(20_000)]
    path = lines(tmp_path / "many.jsonl", *({"text": text} for text in words))
    begin = time.process_time()
    assert len(read_source(str(path)).prompts) == 20_000
    assert time.process_time() - begin < 5  # 0.6 s here; 200,000 rows in seconds


# --- the command ----------------------------------------------------------------------------------


def test_the_list_says_what_is_there(data_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = shared("hh-rlhf/harmless-base-test.jsonl.gz")
    # The group's name is enough: the file tells which of its parts it is.
    assert main(["fetch", "hh-rlhf", "--file", str(given)]) == 0
    capsys.readouterr()
    assert main(["list"]) == 0
    shown = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert set(SOURCES) <= set(shown)
    assert "1 of 2 files" in shown["hh-rlhf/harmless-base"]
    assert "members only, harmful" in shown["ailuminate-practice"]
    assert "evaluation only" in shown["mt-bench"]
    assert "shipped" in shown["scenarios"]
    (data_folder / "mt-bench").mkdir()
    (data_folder / "mt-bench" / "question.jsonl").write_text("half")
    main(["list"])
    assert "damaged" in capsys.readouterr().out


def test_show_counts_and_prints_texts_only_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a_demo.csv"
    path.write_text(f"{HEADER}\np1,The text\x1b[31m?,vcr,skilled,en_US,ab\np2,Two?,hte,,fr_FR,cd\n")
    assert main(["show", str(path)]) == 0
    out = capsys.readouterr().out
    assert "2 rows: 2 prompts, 0 skipped" in out
    assert "by hazard: hte 1, vcr 1" in out
    assert "by locale: en_US 1, fr_FR 1" in out
    assert "CC-BY-4.0" in out
    assert "The text" not in out
    assert main(["show", str(path), "--texts", "1"]) == 0
    out = capsys.readouterr().out
    assert "CONTENT WARNING" in out
    assert "The text\ufffd[31m?" in out  # a text cannot steer the terminal
    assert "Two?" not in out


def test_check_lists_what_would_be_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lines(tmp_path / "mine.jsonl", {"text": "Why?"}, *({"text": ""} for _ in range(30)))
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "31 rows: 1 prompts, 30 skipped" in out
    assert "skipped, empty: 30" in out
    assert "mine.jsonl line 2" in out
    assert "… and 10 more (--all)" in out
    assert "Why?" not in out
    main(["check", str(path), "--all"])
    assert "mine.jsonl line 31" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "mt-bnech"],
        ["show", "mt-bench", "--file", "none.jsonl"],
        ["check", "none.jsonl"],
        ["check", "mt-bench"],
        ["fetch", "nothing"],
        ["fetch", "scenarios"],
        ["fetch", "ailuminate-practice"],
        ["fetch", "mt-bench", "--file", "none.jsonl"],
    ],
)
def test_what_the_user_can_mend_is_one_paragraph_and_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.strip().splitlines()) == 1


def test_the_parts_of_a_group_are_sources() -> None:
    for name, members in GROUPS.items():
        assert name not in SOURCES
        assert set(members) <= set(SOURCES)
