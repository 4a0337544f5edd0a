"""Why a job ended without a result, in words that say what to do.

raise ended_without_result(record, sight, paths)
"""

from __future__ import annotations

import os
import pwd
import signal
from pathlib import Path

from submitit.core.utils import JobPaths, pickle_load

from ccai_core.errors import (
    JobCancelledError,
    JobCrashedError,
    JobError,
    JobLostError,
    JobMemoryError,
    JobNodeError,
    JobPreemptedError,
    JobTimeoutError,
)
from infra import slurm
from infra.backends import Sighting
from infra.job_record import JobRecord

_AGAIN = "The same command starts a new attempt."
_TAIL_LINES = 15
_TAIL_BYTES = 16_384
_OUT_OF_MEMORY = ("oom-kill", "oom_kill", "Exceeded job memory limit", "Out Of Memory")


def ended_without_result(record: JobRecord, sight: Sighting, paths: JobPaths) -> JobError:
    """Return the error for a job that is gone and has left nothing."""
    kind, text = _ending(record, sight, paths)
    return kind(f"{name_of(record)} {text}{tail(paths)}")


def name_of(record: JobRecord) -> str:
    """Return what a job is called in messages."""
    where = f", Slurm job {record.job_id}" if record.backend == "slurm" else ""
    return f"Job {record.key!r} (attempt {record.attempt}{where})"


def tail(paths: JobPaths) -> str:
    """Return the last lines of what a job wrote to standard error, and where the rest is."""
    for path in (paths.stderr, paths.folder / "controller.log"):
        lines = _last_lines(path)
        if lines:
            return "\n".join([f"\nLast lines of {path}:", *(f"  {line}" for line in lines)])
    return f"\nIt wrote nothing to {paths.stderr}."


def _ending(record: JobRecord, sight: Sighting, paths: JobPaths) -> tuple[type[JobError], str]:
    if record.cancelled:
        return JobCancelledError, f"was cancelled. {_AGAIN}"
    raised = _raised_before_it_began(paths)
    if raised:
        return JobError, f"failed before its function began: {raised}"
    if record.backend == "local":
        return JobLostError, (
            "ended without a result: it crashed, was killed (most often for want of memory) or "
            f"had lost its driver. {_AGAIN}"
        )
    return _ending_on_slurm(record, sight, paths)


def _ending_on_slurm(
    record: JobRecord, sight: Sighting, paths: JobPaths
) -> tuple[type[JobError], str]:
    word = sight.word.split()[0] if sight.word else ""
    asked = record.resources
    if word == "CANCELLED":
        return JobCancelledError, f"was cancelled {_by_whom(record, sight)}. {_AGAIN}"
    if word == "OUT_OF_MEMORY" or any(sign in tail(paths) for sign in _OUT_OF_MEMORY):
        had = f"{asked.memory_gb:g} GB" if asked.memory_gb else "what the profile gives"
        return JobMemoryError, f"used more memory than it had ({had}). Give it more `memory_gb`."
    if word in {"TIMEOUT", "DEADLINE"}:
        had = f" of {record.minutes:g} min" if record.minutes else ""
        return JobTimeoutError, f"reached its time limit{had}. Give it more `minutes`."
    if word == "PREEMPTED":
        return JobPreemptedError, (
            "had to give its place to another job, and was not requeued. Use a partition or qos "
            f"that is not preempted, or try again. {_AGAIN}"
        )
    if word in {"NODE_FAIL", "BOOT_FAIL"}:
        return JobNodeError, f"lost its node {sight.node}, and was not requeued. {_AGAIN}"
    if word == "FAILED":
        return JobCrashedError, (
            f"ended without a result on {sight.node or 'its node'}: {_exit(record)}. {_AGAIN}"
        )
    if word == "COMPLETED":
        return JobLostError, (
            "ended without a result although Slurm calls it completed: its function left the "
            f"process, or the result did not reach {paths.folder}. {_AGAIN}"
        )
    return JobLostError, (
        "ended without a result, and Slurm knows nothing of it any more. It was cancelled, killed, "
        f"or had lost its driver. {_AGAIN}"
    )


def _raised_before_it_began(paths: JobPaths) -> str:
    """Return the error submitit met before it came to our code, e.g. a module that is missing."""
    if not paths.result_pickle.exists():
        return ""
    kind, trace = pickle_load(paths.result_pickle)
    return str(trace).strip().splitlines()[-1] if kind == "error" else ""


def _by_whom(record: JobRecord, sight: Sighting) -> str:
    said = sight.word if " by " in sight.word else ""
    if not said:
        line = slurm.accounted(record.job_id)
        said = line.word if line else ""
    uid = said.rpartition(" by ")[2]
    if not uid.isdigit():
        return "by somebody (Slurm does not say whom)"
    if int(uid) == os.getuid():
        return "by you, or in your name (scancel)"
    try:
        name = pwd.getpwuid(int(uid)).pw_name
    except KeyError:
        name = f"user {uid}"
    return f"by the administrator ({name})" if uid == "0" else f"by {name}"


def _exit(record: JobRecord) -> str:
    code, _, number = slurm.exit_code(record.job_id).partition(":")
    if number.isdigit() and int(number) > 0:
        return f"it was killed by {_signal_name(int(number))}"
    if code.isdigit() and int(code) > 128:
        return f"exit code {code} ({_signal_name(int(code) - 128)})"
    return f"exit code {code}" if code else "it crashed"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    return text.rstrip().splitlines()[-_TAIL_LINES:]
