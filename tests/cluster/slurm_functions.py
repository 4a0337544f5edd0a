"""Functions that the tests on a real Slurm submit; a job imports them by name."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def note(notes: Path, text: str) -> None:
    with notes.open("a") as file:
        file.write(f"{text}\n")


def count_up(notes: Path, gate: Path, counter: Path) -> str:
    """Say each start; once the gate is open, go on from where the counter stands."""
    start = os.environ.get("SLURM_RESTART_COUNT", "0")
    note(notes, f"start {start} {os.getpid()}")
    while not gate.exists():
        time.sleep(0.05)
    reached = int(counter.read_text()) if counter.exists() else 0
    counter.write_text(str(reached + 1))
    return f"through at start {start}"


def echo(value: Any) -> Any:
    return value


def double(number: int) -> int:
    return 2 * number


def hold(notes: Path, gate: Path) -> None:
    """Note when it begins and ends, as one of several that take places."""
    note(notes, "begin")
    while not gate.exists():
        time.sleep(0.05)
    note(notes, "end")


def one_rank_dies(notes: Path) -> str:
    """Rank 1 is gone without a word; the others would wait for it for ever."""
    rank = os.environ["SLURM_PROCID"]
    note(notes, f"rank {rank} on {os.environ['SLURMD_NODENAME']}")
    if rank == "1":
        time.sleep(1)
        os._exit(7)
    time.sleep(600)
    return "never"


def own_rank() -> str:
    return os.environ["SLURM_PROCID"]


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave_silently() -> None:
    os._exit(0)


def take_long_to_unwind(notes: Path, seconds: float) -> None:
    """Drain for some seconds when asked to end, as an inference instance does."""
    note(notes, "runs")
    try:
        time.sleep(600)
    finally:
        time.sleep(seconds)
        note(notes, "drained")


def start_stray_child(pids: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    note(pids, str(child.pid))
    time.sleep(600)


def hold_one(both: tuple[Path, Path]) -> None:
    hold(*both)


def see_names() -> dict[str, str]:
    """Return the environment with its values hashed: what a job returns lies in the workspace."""
    return {name: hashlib.sha256(value.encode()).hexdigest() for name, value in os.environ.items()}
