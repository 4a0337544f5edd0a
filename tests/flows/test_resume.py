"""kill -9 at any moment: the same command goes on to the very same pairs."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ccai_core.journal_lines import read_lines
from infra.processes import end_processes
from tests.flows.conftest import Finished
from tests.flows.tiny_flow import Command, alive, attempts, wait_for

ROUNDS = 8


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_processes(partial(alive, tmp_path / "ws"), grace=0)


def settings(finished: Finished, place: Path, *left_out: str) -> dict[str, Any]:
    values = {**finished.values, "workspace": str(place / "ws")}
    return {key: value for key, value in values.items() if key not in left_out}


def journal_size(place: Path) -> int:
    path = place / "ws" / "journal" / "calls.jsonl"
    return path.stat().st_size if path.exists() else 0


def kill_jobs(place: Path) -> int:
    processes = alive(place / "ws")
    for process in processes:
        process.kill()
    return len(processes)


def pairs_of(workspace: Path) -> dict[str, bytes]:
    """Every row of the data set, and its card: the same bytes, or it is not the same data set."""
    (folder,) = workspace.glob("artifacts/pairs-*")
    files = [*folder.glob("data/*.parquet"), folder / "README.md", folder / "dataset.json"]
    assert len(files) > 2
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def check_journal(place: Path) -> None:
    """A call is in the journal once, but for calls of batches that a kill tore."""
    batches: dict[str, Counter[str]] = {}
    for _, found in read_lines(place / "ws" / "journal" / "calls.jsonl"):
        assert found is not None
        batches.setdefault(found[1].batch, Counter())[found[0]] += 1
    written = Counter(key for batch in batches.values() for key in batch)
    twice = [key for key, count in written.items() if count > 1]
    assert twice == []
    whole = [all(n == 1 for n in batch.values()) for batch in batches.values()]
    assert whole.count(False) <= ROUNDS


@pytest.mark.slow
def test_pairs_go_on_after_the_driver_and_its_job_were_killed(
    finished: Finished, server: str, place: Path
) -> None:
    values = settings(finished, place, "training", "evaluation")
    command = partial(Command, "preference_data", values, api=server)
    first = command(place / "1")
    wait_for(lambda: journal_size(place) > 10_000 or first.process.poll() is not None, every=0.005)
    first.kill()
    assert kill_jobs(place) > 0, first.said()
    assert not list((place / "ws").glob("artifacts/pairs-*/record.json"))
    written = journal_size(place)

    second = command(place / "2")
    assert second.ended() == 0, second.said()
    assert journal_size(place) > written > 10_000
    assert pairs_of(place / "ws") == pairs_of(finished.workspace)
    assert attempts(place / "ws") == {"pairs": 2}
    check_journal(place)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_whole_run_that_is_killed_again_and_again_ends_the_same(
    finished: Finished, server: str, place: Path, seed: int
) -> None:
    """Every second round only the driver is killed: its job lives on and the next one joins it."""
    moments = random.Random(seed)
    values = settings(finished, place)
    for number in range(ROUNDS):
        run = Command("poc", values, place / f"{number}", server)
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert run.ended(moments.uniform(1, 20)) == 0, run.said()
            break
        run.kill()
        if number % 2 == 0:
            kill_jobs(place)
    last = Command("poc", values, place / "last", server)
    assert last.ended(240) == 0, last.said()
    assert alive(place / "ws") == []
    assert pairs_of(place / "ws") == pairs_of(finished.workspace)
    (model,) = (place / "ws").glob("artifacts/training-*/model/model.safetensors")
    before = finished.workspace / model.relative_to(place / "ws")
    assert model.read_bytes() == before.read_bytes()
    check_journal(place)
