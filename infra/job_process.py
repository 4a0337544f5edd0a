"""The inside of a job: what surrounds the submitted function in its own process.

It waits until the job is written down, watches the driver's lease and for newer copies of itself,
turns the signals that end a job into an orderly exit, and leaves what the function came to.

    executor.submit(run_with_lease, train, (config,), Surroundings(attempt, lease))
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import submitit

from ccai_core import errors
from infra.job_files import (
    Outcome,
    announce,
    announced,
    begin_run,
    has_outcome,
    still_running,
    write_outcome,
)
from infra.job_leaving import Asked, settle
from infra.job_ranks import meet
from infra.job_record import read_record
from infra.lease import watch
from infra.processes import COOKIE, end_processes, job_processes

UNWIND_S = 10.0
"""Seconds a job has between being asked to end and being killed, unless it was given others."""

_CHILDREN_S = 3.0
_NOTICE_S = 3.0  # an older copy looks each second whether it still counts
_LOOK_S = 1.0
_BEAT_S = 5.0
_TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Surroundings:
    """What a job is told about itself."""

    attempt: Path
    """Its attempt's folder."""
    lease: Path
    lease_seconds: float
    unwind_seconds: float = UNWIND_S
    checkpointable: bool = False
    address: str = "loopback"
    """Where its processes listen for each other, in the words of the cluster profile."""


@dataclass(frozen=True)
class Copy:
    """This process as one of those that run the attempt: which start, and which rank of it."""

    attempt: Path
    job_id: str
    start: int
    rank: int

    def leave(self, outcome: Outcome) -> None:
        """Leave an outcome; a value counts only from rank 0, an error from any."""
        if self.rank == 0 or outcome.kind != "value":
            write_outcome(self.attempt, self.start, outcome)

    def ends(self) -> None:
        """Note that it ran until now, if it ran at all."""
        if self.rank == 0 and announced(self.attempt) == self.start:
            still_running(self.attempt, self.start)


def run_with_lease(
    function: Callable[..., Any], args: tuple[Any, ...], around: Surroundings
) -> None:
    """Run `function(*args)` as the job of `around.attempt`, and no longer than somebody wants it.

    The job ends itself when the lease has not been renewed in time or a newer copy has taken over,
    together with every process it started. What the function came to is left as an `Outcome`.
    """
    copy = _this_copy(around.attempt)
    # For a function that has something to bring to an end when it is asked to leave.
    os.environ["CCAI_LEAVE_SECONDS"] = str(around.unwind_seconds)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGUSR2, _leave)
    why = f"Nobody has renewed {around.lease} for {around.lease_seconds:g} s: the driver is gone"
    watching = watch(
        around.lease, around.lease_seconds, on_expired=lambda: _end_myself(why, around)
    )
    try:
        _check_wanted(copy, around)
        _wait_until_recorded(copy)
        if not _take_over(copy):
            return
        threading.Thread(target=_follow, args=(copy, around, watching), daemon=True).start()
        meet(copy.attempt, copy.start, around.address)
        value = function(*args)
        watching.set()
        copy.leave(Outcome("value", value))
    except errors.CCAIError as error:
        traceback.print_exc()
        _end_children()
        copy.leave(Outcome("refusal", str(error), _class_in_the_tree(error)))
    except Asked as asked:
        traceback.print_exc()
        _end_children()
        if copy.rank > 0:
            # Not a bad exit, or Slurm would kill rank 0 while that is still unwinding.
            raise SystemExit(0) from asked
        settled = settle(copy.job_id, asked, around.checkpointable, copy.start)
        if settled is not None:
            copy.leave(settled)
        raise
    except BaseException as error:
        _end_children()
        if isinstance(error, Exception):
            last = traceback.format_exception_only(error)[-1].strip()
            copy.leave(Outcome("failure", last))
        raise
    finally:
        watching.set()
        copy.ends()


def _this_copy(attempt: Path) -> Copy:
    """Find out which start and rank this is, and mark the processes that it will start."""
    job = submitit.JobEnvironment()
    on_slurm = job.cluster == "slurm"
    copy = Copy(
        attempt,
        job.job_id,
        start=int(os.environ.get("SLURM_RESTART_COUNT") or 0) if on_slurm else 0,
        rank=job.global_rank,
    )
    if not on_slurm and job.num_tasks == 1:
        return copy
    # Two copies may meet on one machine, and several ranks do: none ends the children of another.
    os.environ[COOKIE] = f"{attempt}@{copy.start}.{copy.rank}"
    return copy


def _check_wanted(copy: Copy, around: Surroundings) -> None:
    """End at once if the driver went while the job was queued: a node is too good for waiting.

    Both times are the file server's, so no clocks are compared. On this machine nothing queues.
    """
    if submitit.JobEnvironment().cluster != "slurm":
        return
    probe = around.attempt / f".probe-{copy.start}.{copy.rank}"
    probe.touch()
    try:
        age = probe.stat().st_mtime - around.lease.stat().st_mtime
    except FileNotFoundError:
        age = math.inf
    finally:
        probe.unlink()
    if age > around.lease_seconds:
        print(f"{around.lease} ran out before this job started.", file=sys.stderr, flush=True)
        raise SystemExit(_TERMINATED)


def _wait_until_recorded(copy: Copy) -> None:
    """Start only once `job.json` names this job, so that a restarted driver always finds it.

    A driver killed between starting the process and writing the record leaves a job that nobody
    knows of. It waits here, does nothing, and ends with its lease; one that a later attempt has
    replaced ends at once.
    """
    mine = int(copy.attempt.name.removeprefix("attempt-"))
    pause = 0.02
    while True:
        record = read_record(copy.attempt.parent)
        if record is not None and record.job_id == copy.job_id and record.attempt == mine:
            return
        if record is not None and record.attempt > mine:
            print(f"Attempt {record.attempt} has replaced this one.", file=sys.stderr, flush=True)
            raise SystemExit(0)
        time.sleep(pause)
        pause = min(0.5, pause * 1.2)


def _take_over(copy: Copy) -> bool:
    """Become the start that counts; False when there is nothing to do any more.

    An older copy may still run where Slurm can no longer see it. It is given time to notice.
    """
    if has_outcome(copy.attempt):
        return False
    newest = announced(copy.attempt)
    if newest is not None and newest > copy.start:
        raise SystemExit(0)
    if copy.rank == 0:
        announce(copy.attempt, copy.start)
        begin_run(copy.attempt, copy.start)
    if copy.start > 0:
        time.sleep(_NOTICE_S)
    return True


def _follow(copy: Copy, around: Surroundings, done: threading.Event) -> None:
    """Say now and then that this copy runs, and end it when a newer one has taken over."""
    beat_at = 0.0
    while not done.wait(_LOOK_S):
        try:
            newest = announced(copy.attempt)
            if copy.rank == 0 and time.monotonic() >= beat_at:
                beat_at = time.monotonic() + _BEAT_S
                still_running(copy.attempt, copy.start)
        except (OSError, ValueError):
            continue  # The file system is away for a moment; the next look is a second off.
        if newest is not None and newest > copy.start:
            _end_myself(f"Slurm has started this job again (start {newest})", around)


def _class_in_the_tree(error: errors.CCAIError) -> str:
    """Return the nearest class of `ccai_core.errors`: the driver knows that module for certain."""
    tree = (kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return next(tree)


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    # submitit's own handlers ignore SIGTERM and take a preemption for a time limit. Raising lets
    # `finally` blocks run; a second signal (there mostly is one) must not break into them.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    raise Asked(signum)


def _end_myself(reason: str, around: Surroundings) -> None:
    """Unwind the main thread; when that hangs, leave the hard way."""
    print(f"{reason}, this job ends.", file=sys.stderr, flush=True)
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGTERM)
    time.sleep(around.unwind_seconds)
    _end_children(grace=0.0)
    os._exit(_TERMINATED)


def _end_children(grace: float = _CHILDREN_S) -> None:
    # The parent is submitit's controller or Slurm's; it ends by itself once this process has.
    spare = frozenset({os.getpid(), os.getppid()})
    cookie = os.environ[COOKIE]
    end_processes(lambda: job_processes(cookie, spare=spare), grace)
