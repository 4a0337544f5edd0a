"""What a round of the chaos benchmark computes, and what must come out of it.

Here are the functions that run as jobs, the questions that are asked, and the right results; the
driver submits and asks, the benchmark compares.

    questions(150)[0], count_up(folder, steps=25), weigh((folder, 7))
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from ccai_core.files import write_whole
from ccai_core.types import Call, Sampling, user
from infra.processes import COOKIE

MODEL = "chaos"
STEPS = 25
ITEMS = 12

_SECONDS_A_STEP = 1.0
_SECONDS_AN_ITEM = 2.0


def questions(number: int) -> list[Call]:
    """Return that many different calls, three to an episode."""
    return [
        Call(
            messages=(user(f"Question {index}: what is the answer?"),),
            sampling=Sampling(max_new_tokens=16, temperature=0, top_p=1.0, seed=index),
            episode=f"episode {index // 3}",
        )
        for index in range(number)
    ]


def count_up(folder: Path, steps: int) -> int:
    """Count to `steps`, a checkpoint each step; started again it goes on from the last one.

    Each step is noted with attempt and start, so that two copies at work at once would show.
    """
    checkpoint = folder / "count"
    reached = int(checkpoint.read_text()) if checkpoint.exists() else 0
    while reached < steps:
        time.sleep(_SECONDS_A_STEP)
        reached += 1
        note(folder / "steps", str(reached))
        write_whole(checkpoint, str(reached))
    return reached


def weigh(item: tuple[Path, int]) -> str:
    """Compute something small from a number; note when it begins and when it is through."""
    folder, number = item
    note(folder / "weighed", f"{number} begin")
    time.sleep(_SECONDS_AN_ITEM)
    note(folder / "weighed", f"{number} end")
    return weight(number)


def weight(number: int) -> str:
    """Return the right result of `weigh`."""
    return hashlib.sha256(f"item {number}".encode()).hexdigest()


def note(file: Path, text: str) -> None:
    """Append a line that says who writes it: attempt and start, e.g. `2 0 text`."""
    attempt, _, copy = Path(os.environ[COOKIE]).name.removeprefix("attempt-").partition("@")
    start = copy.partition(".")[0] or "0"
    line = f"{attempt} {start} {text}\n".encode()
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line)  # one write: lines of several processes do not mix
    finally:
        os.close(handle)
