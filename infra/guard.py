"""End what a killed driver leaves behind: a small process that waits for its driver's end.

A driver starts helpers of others' making, such as Prefect's temporary server, that end when it says
so. Killed with -9 it cannot say so. The guard holds the other end of a pipe: when the driver is
gone, however it went, the pipe closes and the guard ends all that carries the driver's cookie. Jobs
carry cookies of their own; they live on until their lease runs out, for the next driver to join.

    guard_children()        # once, before the first child is started
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

from infra.processes import COOKIE, end_processes, job_processes

_GRACE_S = 5.0
# Kept, or Python would close the pipe as soon as nobody refers to the process.
_guards: list[subprocess.Popen[bytes]] = []


def guard_children() -> None:
    """Let every process that this one starts from now on end with it."""
    cookie = os.environ[COOKIE] = f"driver-{uuid.uuid4()}"
    root = str(Path(__file__).resolve().parent.parent)
    # Its pipe is never closed by us: the operating system does it when this process ends. In a
    # session of its own, the guard does not hear the Ctrl-C that its driver still has to answer.
    guard = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
        [sys.executable, "-m", __name__, cookie],
        cwd=root,
        env={name: value for name, value in os.environ.items() if name != COOKIE},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _guards.append(guard)


def main() -> None:
    """Wait for the end of standard input, then end what carries the cookie."""
    cookie = sys.argv[1]
    sys.stdin.read()
    end_processes(lambda: job_processes(cookie), grace=_GRACE_S)


if __name__ == "__main__":
    main()
