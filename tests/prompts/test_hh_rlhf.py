"""HH-RLHF: the first human turn whole, conversations up to the last question, nothing lost."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from ccai_core.prompts.registry import SOURCES
from ccai_core.prompts.sources import Loaded, read_source
from ccai_core.prompts.splits import split_of

SHARED = Path(__file__).parents[3] / "shared" / "data" / "hh-rlhf"
HARMLESS = "hh-rlhf/harmless-base"


def comparison(chosen: str, rejected: str | None = None) -> dict[str, str]:
    return {"chosen": chosen, "rejected": chosen if rejected is None else rejected}


def read(folder: Path, *rows: object, multi_turn: bool = False) -> Loaded:
    path = folder / "some.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return read_source(HARMLESS, path, multi_turn=multi_turn)


TALK = (
    "\n\nHuman: List two things: one, two.\nAssistant: is a word, too. Note: keep\n\nthis"
    "\n\nAssistant: Sure: A. B."
    "\n\nHuman: And a third: please?"
    "\n\nAssistant: C."
)
FIRST = "List two things: one, two.\nAssistant: is a word, too. Note: keep\n\nthis"


# --- the real file --------------------------------------------------------------------------------


@pytest.mark.parametrize("multi_turn", [False, True])
def test_the_published_test_file_is_read_whole(multi_turn: bool) -> None:
    path = SHARED / "harmless-base-test.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"HH-RLHF is not in {SHARED}")
    loaded = read_source(str(path), multi_turn=multi_turn)
    # Known by its content: it has another name here.
    assert loaded.source == SOURCES[HARMLESS]
    assert (len(loaded.prompts), loaded.skipped, loaded.passed_over) == (2312, (), 0)
    assert loaded.prompts[-1].id == f"{HARMLESS}-test-2312"
    turns = Counter(len(prompt.turns) for prompt in loaded.prompts)
    assert sum(turns.values()) == 2312
    if multi_turn:
        assert len(turns) > 5
        assert all(count % 2 for count in turns)  # speakers take turns, and a human is the last
    else:
        assert set(turns) == {1}
    assert read_source(HARMLESS, path, multi_turn=multi_turn).prompts == loaded.prompts


# --- turns ----------------------------------------------------------------------------------------


def test_the_first_turn_keeps_what_is_after_its_colons(tmp_path: Path) -> None:
    [prompt] = read(tmp_path, comparison(TALK)).prompts
    assert prompt.text == FIRST
    assert (prompt.context, prompt.source) == ((), HARMLESS)
    assert prompt.split == split_of(FIRST)
    assert prompt.id == f"{HARMLESS}-some-1"


def test_a_conversation_up_to_its_last_question(tmp_path: Path) -> None:
    [prompt] = read(tmp_path, comparison(TALK, TALK + " D."), multi_turn=True).prompts
    assert prompt.text == "And a third: please?"
    assert [(turn.role, turn.content) for turn in prompt.context] == [
        ("user", FIRST),
        ("assistant", "Sure: A. B."),
    ]


def test_only_what_both_answers_share_is_context(tmp_path: Path) -> None:
    start = "\n\nHuman: One?\n\nAssistant: Yes.\n\nHuman: Two?"
    longer = f"{start}\n\nAssistant: A.\n\nHuman: Three?\n\nAssistant: B."
    row = comparison(longer, f"{start}\n\nAssistant: C.")
    [prompt] = read(tmp_path, row, multi_turn=True).prompts
    assert [turn.content for turn in prompt.turns] == ["One?", "Yes.", "Two?"]


def test_two_turns_of_one_speaker_are_one(tmp_path: Path) -> None:
    text = "\n\nHuman: One?\n\nHuman: Two?\n\nAssistant: Yes.\n\nAssistant: No.\n\nHuman: Why?"
    [prompt] = read(tmp_path, comparison(text)).prompts
    assert prompt.text == "One?\n\nTwo?"
    [prompt] = read(tmp_path, comparison(text), multi_turn=True).prompts
    assert [turn.content for turn in prompt.turns] == ["One?\n\nTwo?", "Yes.\n\nNo.", "Why?"]


def test_rows_that_begin_alike_are_all_given(tmp_path: Path) -> None:
    loaded = read(tmp_path, comparison(TALK), comparison(TALK))
    assert [p.id[-1] for p in loaded.prompts] == ["1", "2"]


def test_red_team_transcripts_in_one_list(tmp_path: Path) -> None:
    path = tmp_path / "red_team_attempts.jsonl.gz"
    rows = [
        {"transcript": TALK.lstrip(), "task_description": "x", "tags": ["a", "b"], "rating": 1.0},
        {"transcript": TALK, "task_description": "y", "tags": None, "rating": 2.0},
    ]
    # The published file is named .jsonl.gz and is one list.
    path.write_bytes(gzip.compress(json.dumps(rows, indent=1).encode()))
    loaded = read_source("hh-rlhf/red-team-attempts", path)
    assert [p.text for p in loaded.prompts] == [FIRST, FIRST]
    assert [p.tags for p in loaded.prompts] == [("a", "b"), ()]
    [first, _] = read_source("hh-rlhf/red-team-attempts", path, multi_turn=True).prompts
    assert first.text == "And a third: please?"


def test_answers_with_a_prompt_of_their_own_are_another_format(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "Why?", "chosen": "So.", "rejected": "No."}))
    assert [p.text for p in read_source(str(path)).prompts] == ["Why?"]


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": None, "rejected": ""}, "no text"),
        ({"chosen": 5, "rejected": ""}, "no text"),
        (comparison("Just a text: nobody speaks."), "no human turn"),
        (comparison("\n\nAssistant: Hello."), "no human turn"),
        (comparison("Before.\n\nHuman: Why?"), "no human turn"),
        (comparison("\n\nHuman:  \n\nAssistant: Hello."), "empty"),
        (comparison("\n\nHuman: " + "long " * 5000), "too long"),
    ],
)
def test_a_bad_row_is_listed_and_the_others_are_read(
    tmp_path: Path, row: dict[str, str], reason: str
) -> None:
    loaded = read(tmp_path, comparison(TALK), row, comparison(TALK))
    assert [p.id[-1] for p in loaded.prompts] == ["1", "3"]
    [skipped] = loaded.skipped
    assert (skipped.where, skipped.reason) == ("some.jsonl.gz line 2", reason)


def test_answers_that_share_no_question(tmp_path: Path) -> None:
    loaded = read(
        tmp_path, comparison(TALK), comparison(TALK, "\n\nHuman: Other?"), multi_turn=True
    )
    assert [s.reason for s in loaded.skipped] == ["no human turn"]
