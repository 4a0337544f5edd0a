"""What an attempt leaves in its folder: which start of it counts, how long it ran, what it came to.

Slurm may start one job several times (requeue, preemption, a failed node), and when a node's daemon
dies it starts a second copy while the first still runs. Each start has a number. The newest one
announces itself; an older copy that reads the announcement ends itself, and what it leaves does
not count.

start            number of the start that counts
run-<n>          when start n began; its file time says until when it was seen alive
outcome-<n>.pkl  what start n came to

announce(attempt, 1); write_outcome(attempt, 1, Outcome("value", 42)); read_outcome(attempt)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from submitit.core.utils import cloudpickle_dump, pickle_load

from ccai_core.files import write_whole


@dataclass(frozen=True)
class Outcome:
    """What a function came to: its value, or why there is none."""

    kind: Literal["value", "refusal", "failure", "ended"]
    """refusal: an error that is the user's to mend; failure: any other exception; ended: the job
    was asked to leave before the function was through."""
    value: Any
    """The returned value or the message."""
    error: str = ""
    """For `refusal` and `ended`, the name of the class in `ccai_core.errors`."""


def announced(attempt: Path) -> int | None:
    """Return the number of the start that counts; None while nothing has started."""
    try:
        return int((attempt / "start").read_text(encoding="ascii"))
    except FileNotFoundError:
        return None


def announce(attempt: Path, start: int) -> None:
    """Say that from now on `start` is the one that counts."""
    write_whole(attempt / "start", str(start))


def write_outcome(attempt: Path, start: int, outcome: Outcome) -> bool:
    """Leave what `start` came to, unless it no longer counts or has said so before.

    The first word of several ranks counts. Returns whether this one does.

    Raises:
        Exception: the value cannot be pickled.
    """
    path = _outcome_file(attempt, start)
    if announced(attempt) != start or path.exists():
        return False
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        cloudpickle_dump(outcome, draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return True


def has_outcome(attempt: Path) -> bool:
    """Whether the start that counts has come to something."""
    start = announced(attempt)
    return start is not None and _outcome_file(attempt, start).exists()


def read_outcome(attempt: Path) -> Outcome | None:
    """Return what the start that counts came to.

    Raises:
        OSError, EOFError, AttributeError, ImportError, pickle.UnpicklingError: it cannot be read.
    """
    start = announced(attempt)
    if start is None or not _outcome_file(attempt, start).exists():
        return None
    outcome: Outcome = pickle_load(_outcome_file(attempt, start))
    return outcome


def begin_run(attempt: Path, start: int) -> None:
    """Note when `start` began, by the clock of the file system: nodes' clocks differ."""
    path = _run_file(attempt, start)
    path.touch()
    path.write_text(f"{path.stat().st_mtime}\n", encoding="ascii")


def still_running(attempt: Path, start: int) -> None:
    """Note that `start` runs."""
    _run_file(attempt, start).touch()


def seconds_run(attempt: Path) -> float:
    """Return how long the attempt has run, all its starts together, to within some seconds."""
    total = 0.0
    for path in attempt.glob("run-*"):
        began = path.read_text(encoding="ascii").strip()
        if began:
            total += max(0.0, path.stat().st_mtime - float(began))
    return total


def _outcome_file(attempt: Path, start: int) -> Path:
    return attempt / f"outcome-{start}.pkl"


def _run_file(attempt: Path, start: int) -> Path:
    return attempt / f"run-{start}"
