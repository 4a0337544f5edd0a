"""An engine's processes: started together, logged without secrets, and ended together.

An engine is often a tree (a launcher, shards, workers) that leaves children behind when its head is
killed. So a keeper stands between us and it. In a session of its own it starts the engine and
writes its log. When the engine ends, or whoever started the keeper is gone (its standard input
closes then, even after kill -9), it ends what is left of the session.

    keeper = await start_engine(command, environment, log)
    ...
    await end_engine(keeper)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from ccai_core.errors import FleetError
from infra.processes import end_processes

ENGINE_GRACE_S = 5.0
"""Seconds the engine has between SIGTERM and SIGKILL."""

_KEEPER = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from infra.engine_process import keep; keep(sys.argv[1], sys.argv[2:])"
)
_PUMP_S = 2.0
_CHUNK = 1 << 16
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")
_SHORTEST_SECRET = 8


async def start_engine(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> asyncio.subprocess.Process:
    """Start an engine under its keeper, and return the keeper.

    Args:
        command: Program and words; no shell sees them.
        environment: All of it; values of variables that hold secrets never reach the log.
        log: File to append the engine's output to; its owner's alone.

    Raises:
        FleetError: there is no such program.
    """
    if shutil.which(command[0], path=environment.get("PATH")) is None:
        raise FleetError(
            f"The engine's program {command[0]!r} is not here. Install it where the jobs run, or "
            "set `executable` (in the cluster profile's `fleet`) to its path."
        )
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch(mode=0o600)
    root = str(Path(__file__).resolve().parents[1])
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", _KEEPER, root, str(log), *command,
        env=environment, stdin=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


async def end_engine(keeper: asyncio.subprocess.Process) -> None:
    """End the engine with all its processes, the keeper last.

    Raises:
        JobError: something survived SIGKILL.
    """
    assert keeper.stdin is not None  # noqa: S101 - it was asked for
    keeper.stdin.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(keeper.wait(), 2 * ENGINE_GRACE_S)
    # Nothing, unless somebody has killed the keeper itself.
    await asyncio.to_thread(end_processes, lambda: _session(keeper.pid), ENGINE_GRACE_S)


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of an engine's log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _CHUNK))
        text = file.read().decode("utf-8", errors="replace")
    return "\n".join(text.splitlines()[-lines:])


def keep(log: str, command: Sequence[str]) -> None:
    """Be the keeper: run `command` to its end, or to the end of standard input."""
    # Slurm sends signals to all processes of a job at once. Those that announce an end are for the
    # instance alone: ignored here, they are so in the engine, too, which goes on for the drain.
    for announcement in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(announcement, signal.SIG_IGN)
    # A handler is not inherited: the engine ends at SIGTERM as it sees fit, and the keeper stays.
    signal.signal(signal.SIGTERM, lambda *_: None)
    process = subprocess.Popen(  # noqa: S603 - words of an adapter, no shell
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None  # noqa: S101 - it was asked for
    pump = threading.Thread(target=_pump, args=(process.stdout, Path(log)), daemon=True)
    pump.start()
    threading.Thread(target=_end_with_input, daemon=True).start()
    code = process.wait()
    _end_others()
    pump.join(_PUMP_S)
    sys.exit(code if code >= 0 else 128 - code)


def _end_with_input() -> None:
    os.read(sys.stdin.fileno(), 1)  # Nobody writes: this is its end.
    _end_others()


def _end_others() -> None:
    mine = os.getpid()
    end_processes(lambda: [each for each in _session(mine) if each.pid != mine], ENGINE_GRACE_S)


def _session(leader: int) -> list[psutil.Process]:
    members: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                members.update([process, *process.children(recursive=True)])
        except (OSError, psutil.NoSuchProcess):
            continue  # Ended between the look and the question, or another user's.
    return [each for each in members if _lives(each)]


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _pump(output: IO[bytes], log: Path) -> None:
    """Copy what the engine says, line by line, with every secret of the environment blotted out.

    Engines print their settings when they start, the API key among them.
    """
    secrets = sorted(
        (
            value.encode()
            for name, value in os.environ.items()
            if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET
        ),
        key=len,
        reverse=True,
    )
    with log.open("ab", buffering=0) as file:
        held = b""
        while chunk := os.read(output.fileno(), _CHUNK):
            held += chunk
            # A secret must not be cut in two; progress bars write \r for a long time.
            end = max(held.rfind(b"\n"), held.rfind(b"\r")) + 1
            if not end and len(held) > _CHUNK:
                end = len(held)
            file.write(_blot(held[:end], secrets))
            held = held[end:]
        file.write(_blot(held, secrets))


def _blot(text: bytes, secrets: Sequence[bytes]) -> bytes:
    for secret in secrets:
        text = text.replace(secret, b"[secret]")
    return text
