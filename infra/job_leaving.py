"""Why a job was asked to leave, and what follows: it is started again, or says why it ended.

Slurm signals a job before its time limit and before a preemption. A job that then exits by itself
counts as failed, however it was asked; so one that may go on has to ask for its requeue itself.

outcome = settle(job_id, asked, checkpointable=True, start=0)
"""

from __future__ import annotations

import os
import signal
import sys

from infra import slurm
from infra.job_files import Outcome

_MAX_RESTARTS = 20


class Asked(SystemExit):
    """Raised where the function stands when the job is asked to end.

    Not an Exception, so that a retry loop in the function cannot mistake it for a failed call.
    """

    def __init__(self, signum: int) -> None:
        """Exit as a process ended by SIGTERM does."""
        super().__init__(128 + signal.SIGTERM)
        self.signum = signum


def settle(job_id: str, asked: Asked, checkpointable: bool, start: int) -> Outcome | None:
    """Return what to leave behind; None when the job goes on later or was simply cancelled."""
    reason = _reason(job_id, asked)
    print(f"The job was asked to end: {reason}.", file=sys.stderr, flush=True)
    if reason == "cancelled":
        return None
    if checkpointable and _on_slurm():
        if start < _MAX_RESTARTS or reason == "preempted":
            # Fails harmlessly where Slurm has requeued the job before we came to ask.
            answer = slurm.requeue(job_id)
            print(f"Asked for a requeue. {answer}", file=sys.stderr, flush=True)
            return None
        return Outcome(
            "ended",
            f"It reached its time limit {start + 1} times, which is enough; give it more "
            "`minutes`, or look whether it makes progress at all.",
            "JobTimeoutError",
        )
    if reason == "preempted":
        return Outcome(
            "ended",
            "It had to give its place to another job, and may not be requeued because it cannot "
            "go on where it was. Use a partition or qos that is not preempted, or try again.",
            "JobPreemptedError",
        )
    return Outcome("ended", "It reached its time limit; give it more `minutes`.", "JobTimeoutError")


def goes_on_later(signum: int) -> bool:
    """Tell whether this job, asked to end by a signal, will be started again by Slurm.

    For a function that ends in order when asked: what it returned would count as its result, and
    the start that follows would find nothing left to do. It raises `Asked` instead.
    """
    if not _on_slurm():
        return False
    if signum == signal.SIGUSR2:
        return True
    facts = slurm.details(os.environ["SLURM_JOB_ID"])
    mine = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    return int(facts.get("Restarts", mine)) > mine


def _reason(job_id: str, asked: Asked) -> str:
    if not _on_slurm():
        return "time limit" if asked.signum == signal.SIGUSR2 else "cancelled"
    facts = slurm.details(job_id)
    if facts.get("PreemptTime", "None") not in {"None", "Unknown"}:
        return "preempted"
    if facts.get("Reason") == "TimeLimit":
        return "time limit"
    # Slurm sends the job's own signal only before the limit and before a preemption.
    return "time limit" if asked.signum == signal.SIGUSR2 else "cancelled"


def _on_slurm() -> bool:
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
