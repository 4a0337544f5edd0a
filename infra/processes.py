"""Find and end every process of a job, however far it has strayed from its parent.

A pid says little: it is reused, and a process whose parent has died no longer hangs in any tree.
Each job therefore carries a cookie in its environment, which all its descendants inherit; a
process belongs to the job when it has the cookie or descends from one that has it.

    end_processes(lambda: job_processes(str(attempt_folder)), grace=10.0)
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

from ccai_core.errors import JobError

COOKIE = "CCAI_JOB"
"""Environment variable that names the job (its attempt folder) in each of its processes."""

_UNKILLABLE_S = 10.0


def job_processes(*cookies: str, spare: frozenset[int] = frozenset()) -> list[psutil.Process]:
    """Return the living processes of the jobs, without those whose pid is in `spare`."""
    members: set[psutil.Process] = set()
    for process in psutil.process_iter():
        if _environment(process).get(COOKIE) in cookies:
            members.add(process)
            # A server started with a cleaned environment is still a child of one that was not.
            members.update(_descendants(process))
    return [each for each in members if each.pid not in spare and _is_living(each)]


def end_processes(find: Callable[[], list[psutil.Process]], grace: float) -> None:
    """Ask every process that `find` returns to end (SIGTERM); kill what is left after `grace` s.

    `find` is asked again until it returns nothing, so that a process started meanwhile does not
    get away. Sending a signal through psutil is safe against reused pids.

    Raises:
        JobError: something survived SIGKILL (it hangs in the kernel, mostly on a dead disk).
    """
    deadline = time.monotonic() + grace
    asked: set[psutil.Process] = set()
    while members := find():
        overdue = time.monotonic() - deadline
        if overdue > _UNKILLABLE_S:
            pids = ", ".join(str(each.pid) for each in members)
            raise JobError(f"Processes {pids} cannot be ended, not even by SIGKILL; see `ps -l`.")
        for process in members:
            if overdue > 0:
                _signal(process.kill)
            elif process not in asked:
                asked.add(process)
                _signal(process.terminate)
        psutil.wait_procs(members, timeout=0.1)


def command_line(pid: int) -> list[str]:
    """Return the arguments of a living process; empty for a dead one, a zombie or a stranger."""
    try:
        arguments: list[str] = psutil.Process(pid).cmdline()
    except psutil.Error:
        return []
    return arguments


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return  # It ended between the look and the signal, which is what was wanted.


def _environment(process: psutil.Process) -> dict[str, str]:
    # Other users' processes and those just ended cannot be read, and none of them is the job's.
    try:
        environment: dict[str, str] = process.environ()
    except (psutil.Error, OSError):
        return {}
    return environment


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        descendants: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return descendants


def _is_living(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
