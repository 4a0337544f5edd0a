"""A few rounds of the chaos benchmark, and that its checks would see what they look for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos import Round, play
from benchmarks.chaos_checks import check
from benchmarks.chaos_engine import answer_to
from benchmarks.chaos_events import EVENTS
from benchmarks.chaos_work import ITEMS, MODEL, STEPS, questions, weight
from ccai_core.journal import Journal
from ccai_core.types import Completion
from infra.job_files import Outcome, announce, write_outcome
from tests.cluster.slurm_lab import SlurmLab

CALLS = 6


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 5, 7])
def test_nothing_is_lost_doubled_or_left(on_lab: SlurmLab, tmp_path: Path, number: int) -> None:
    this = Round.drawn(seed=1, number=number)
    play(on_lab, tmp_path / "round", this, calls=90, most_seconds=480)
    assert this.is_right, this.row()


def test_every_kind_of_event_comes_first_in_its_turn() -> None:
    rounds = [Round.drawn(seed=0, number=number) for number in range(1, len(EVENTS) + 1)]
    assert all(1 <= len(each.events) <= 3 for each in rounds)
    firsts = zip(rounds, EVENTS, strict=True)
    assert all(kind in {event.kind for event in each.events} for each, kind in firsts)
    assert rounds[3].row() == Round.drawn(seed=0, number=4).row()


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """What a round leaves behind in which nothing went wrong."""
    texts = [answer_to(each.messages[-1].content) for each in questions(CALLS)]
    results: dict[str, Any] = {"answers": texts, "counted": STEPS}
    results["weighed"] = [weight(number) for number in range(ITEMS)]
    (tmp_path / "results.json").write_text(json.dumps(results))
    for call, text in zip(questions(CALLS), texts, strict=True):
        record(tmp_path, call.key(MODEL), text)
    for key in ["count", *(f"weigh.{number}" for number in range(ITEMS))]:
        leave(tmp_path, key, attempt=1)
    (tmp_path / "steps").write_text("1 0 1\n1 0 2\n1 1 2\n2 0 3\n")
    return tmp_path


def record(folder: Path, key: str, text: str) -> None:
    with Journal.open(folder / "journal" / "calls.jsonl") as journal:
        journal.append([(key, Completion(text=text, finish_reason="stop"))])


def leave(folder: Path, key: str, attempt: int) -> None:
    home = folder / "jobs" / key / f"attempt-{attempt}"
    home.mkdir(parents=True)
    announce(home, 0)
    write_outcome(home, 0, Outcome("value", 1))


def test_a_whole_round_passes(whole: Path) -> None:
    verdict = check(whole, CALLS)
    assert (verdict.lost, verdict.duplicated) == ([], [])


def test_what_is_lost_is_seen(whole: Path) -> None:
    (whole / "jobs" / "weigh.3" / "attempt-1" / "outcome-0.pkl").unlink()
    results = json.loads((whole / "results.json").read_text())
    results["answers"][0] = "another"
    (whole / "results.json").write_text(json.dumps(results))
    with (whole / "steps").open("a") as steps:
        steps.write("3 0 2\n")
    verdict = check(whole, CALLS + 1)
    assert [each.partition(":")[0].partition(" ->")[0] for each in verdict.lost] == [
        "answers",
        f"Question {CALLS}: what is the answer?".partition(":")[0],
        "job weigh.3",
        "steps that were counted already",
    ]


def test_what_is_doubled_is_seen(whole: Path) -> None:
    call = questions(1)[0]
    record(whole, call.key(MODEL), answer_to(call.messages[-1].content))
    leave(whole, "weigh.3", attempt=2)
    with (whole / "steps").open("a") as steps:
        steps.write("1 1 3\n")
    assert [each.partition(":")[0] for each in check(whole, CALLS).duplicated] == [
        f"call {call.key(MODEL)}",
        "job weigh.3",
        "two copies counted at once",
    ]
