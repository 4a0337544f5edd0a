"""The inside of a job: what surrounds the submitted function in its own process.

It waits until the job is written down, watches the driver's lease, turns the signals that end a
job into an orderly exit, and hands errors of the user's kind back by name.

    executor.submit(run_with_lease, train, (config,), attempt, 60.0)   # what local_jobs does
"""

from __future__ import annotations

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
from typing import Any

import submitit

from ccai_core import errors
from infra.job_record import lease_file, read_record
from infra.lease import watch
from infra.processes import end_processes, job_processes

UNWIND_S = 10.0
"""Seconds a job has between being asked to end and being killed."""

_CHILDREN_S = 3.0
_TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Refusal:
    """An error that is the user's to mend, carried to the driver by class name and message."""

    kind: str
    message: str


class _TimeLimitReached(BaseException):
    """Raised where the function stands when its time is up.

    Not an Exception, so that a retry loop in the function cannot mistake it for a failed call.
    """


def run_with_lease(
    function: Callable[..., Any], args: tuple[Any, ...], attempt: Path, seconds: float
) -> Any:
    """Run `function(*args)` as the job of `attempt`, and no longer than somebody wants it.

    The job ends itself when the lease has not been renewed for `seconds`, together with every
    process it started. Returns the function's value, or a `Refusal` for a `CCAIError`.
    """
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGUSR2, _reach_time_limit)
    lease = lease_file(attempt)
    watching = watch(lease, seconds, on_expired=lambda: _end_myself(lease, seconds))
    try:
        _wait_until_recorded(attempt)
        return function(*args)
    except errors.CCAIError as error:
        traceback.print_exc()
        _end_children(attempt)
        return Refusal(_class_in_the_tree(error), str(error))
    except _TimeLimitReached:
        traceback.print_exc()
        _end_children(attempt)
        return Refusal(
            "JobError",
            f"Job {attempt.parent.name!r} reached its time limit; give it more `minutes`. "
            f"Its logs are in {attempt}.",
        )
    except BaseException:
        _end_children(attempt)
        raise
    finally:
        watching.set()


def _wait_until_recorded(attempt: Path) -> None:
    """Start only once `job.json` names this job, so that a restarted driver always finds it.

    A driver killed between starting the process and writing the record leaves a job that nobody
    knows of. It waits here, does nothing, and ends with its lease; the same holds for one that a
    later attempt has replaced.
    """
    mine = submitit.JobEnvironment().job_id
    while True:
        record = read_record(attempt.parent)
        if record is not None and record.job_id == mine and attempt.name == record.folder_name:
            return
        time.sleep(0.02)


def _class_in_the_tree(error: errors.CCAIError) -> str:
    """Return the nearest class of `ccai_core.errors`: the driver knows that module for certain."""
    tree = (kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return next(tree)


def _terminate(signum: int, frame: FrameType | None) -> None:
    # submitit's own handler ignores SIGTERM. Raising lets `finally` blocks run; a second signal
    # (the controller forwards one too) must not break into them.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(_TERMINATED)


def _reach_time_limit(signum: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    raise _TimeLimitReached


def _end_myself(lease: Path, seconds: float) -> None:
    """Unwind the main thread; when that hangs, leave the hard way."""
    reason = f"Nobody has renewed {lease} for {seconds:g} s: the driver is gone, this job ends."
    print(reason, file=sys.stderr, flush=True)
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGTERM)
    time.sleep(UNWIND_S)
    _end_children(lease.parent, grace=0.0)
    os._exit(_TERMINATED)


def _end_children(attempt: Path, grace: float = _CHILDREN_S) -> None:
    # The parent is submitit's controller; it ends by itself once this process has.
    spare = frozenset({os.getpid(), os.getppid()})
    end_processes(lambda: job_processes(str(attempt), spare=spare), grace)
