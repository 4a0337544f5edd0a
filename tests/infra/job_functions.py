"""Functions that the job tests submit; a job imports them as `tests.infra.job_functions`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ccai_core.errors import ConfigError, ModelError


class WeightsError(ModelError):
    """A class the driver knows only by its base."""


def add(left: int, right: int) -> int:
    return left + right


def negate(number: int) -> int:
    return -number


def see_environment() -> dict[str, str]:
    return dict(os.environ) | {"cwd": str(Path.cwd())}


def note_and_wait(notes: Path, gate: Path) -> str:
    """Append a line to `notes` for each execution, then wait until `gate` exists."""
    with notes.open("a") as file:
        file.write(f"{os.getpid()}\n")
    while not gate.exists():
        time.sleep(0.05)
    return "through"


def start_family(pids: Path) -> None:
    """Start a child that ignores SIGTERM and has left the tree and the session, then wait."""
    stubborn = (
        "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(600)"
    )
    between = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', *sys.argv[1:]],"
        "start_new_session=True)"
    )
    subprocess.run([sys.executable, "-c", between, stubborn, str(pids)], check=True)
    time.sleep(600)


def clean_up_when_ended(entered: Path, cleaned: Path) -> None:
    try:
        entered.touch()
        time.sleep(600)
    finally:
        cleaned.touch()


def refuse(kind: str) -> None:
    kinds = {"ConfigError": ConfigError, "WeightsError": WeightsError}
    raise kinds[kind](f"{kind}: the value is wrong; set another.")


def divide(left: int, right: int) -> float:
    return left / right


def crash(lines: int, pids: Path) -> None:
    """Print to standard error, start a child, and be gone without a word."""
    for line in range(lines):
        print(f"line {line}", file=sys.stderr)
    sys.stderr.flush()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pids.write_text(f"{child.pid}\n")
    os._exit(3)


def fail_once(notes: Path) -> str:
    if notes.exists():
        return "mended"
    notes.touch()
    raise RuntimeError("the first one fails")


def swallow_everything(entered: Path) -> None:
    """Behave like a retry loop that treats every Exception as a passing fault."""
    entered.touch()
    while True:
        try:
            time.sleep(60)
        except Exception:  # noqa: BLE001
            continue


def outer() -> Any:
    def inner() -> None:
        return None

    return inner


def note_gpus_and_wait(notes: Path, gate: Path) -> None:
    """Write down which GPUs the job sees, then wait until `gate` exists."""
    notes.write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    while not gate.exists():
        time.sleep(0.05)


def sum_of_ranks() -> list[int]:
    """Meet the other processes of the job, and add up what each brings."""
    import torch

    torch.distributed.init_process_group("gloo")
    mine = torch.tensor(int(os.environ["RANK"]))
    torch.distributed.all_reduce(mine)
    world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    torch.distributed.destroy_process_group()
    return [world, rank, int(mine)]


def last_rank_dies(pids: Path) -> None:
    """Let one process be killed while the other waits for it."""
    import torch

    with pids.open("a") as file:
        file.write(f"{os.getpid()}\n")
    torch.distributed.init_process_group("gloo")
    if os.environ["RANK"] != "0":
        os.kill(os.getpid(), signal.SIGKILL)
    torch.distributed.barrier()


def last_rank_refuses() -> None:
    """Let one process raise what is the user's to mend while the other waits for it."""
    import torch

    torch.distributed.init_process_group("gloo")
    if os.environ["RANK"] != "0":
        raise ConfigError("rank 1 will not")
    torch.distributed.barrier()
