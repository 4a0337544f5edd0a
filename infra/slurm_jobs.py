"""Jobs on Slurm, submitted through submitit and looked after by ourselves.

submitit writes the script and the pickles and calls sbatch. Its own watching of jobs is not used:
it notices no cancelled job where there is no accounting, and takes requeues for failures.

    [job_id] = SlurmJobs().start([call], cluster, files)
"""

from __future__ import annotations

import functools
import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar

from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError

from ccai_core.errors import ConfigError
from infra import slurm, slurm_script
from infra.backends import Call, Sighting
from infra.cluster import ClusterConfig
from infra.job_files import has_outcome
from infra.job_imports import explain_pickling
from infra.job_process import run_with_lease
from infra.job_record import JobRecord
from infra.slurm_command import SlurmError, has_accounting, is_passing, setting
from infra.slurm_executor import CleanExecutor
from infra.slurm_refusals import refusal

logger = logging.getLogger(__name__)

T = TypeVar("T")

QUEUED = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD",
     "SPECIAL_EXIT"}
)  # fmt: skip
RUNNING = frozenset(
    {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"}
)
# A job that may be requeued shows these for a moment while Slurm puts it back into the queue.
_COMES_BACK = frozenset({"PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "TIMEOUT"})
# A job that waits for one of these waits for ever unless somebody changes job or cluster.
_NEVER_STARTS = frozenset(
    {"PartitionConfig", "PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints",
     "InvalidAccount", "InvalidQOS", "AccountNotAllowed",
     "QOSNotAllowed", "JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue",
     "launch failed requeued held", "DependencyNeverSatisfied"}
)  # fmt: skip
_NEW_FOR_S = 5.0
_ASK_AGAIN_S = 15.0
_GIVEN_UP_S = 90.0
_SHORT_UNWIND_S = 10.0
_RETRY_S = 15.0


class SlurmJobs:
    """Jobs of the Slurm cluster that this machine belongs to."""

    settle_seconds = 5.0
    poll_at_end = 0.5
    leaves_nothing = True

    def check(self, record: JobRecord, cluster: ClusterConfig, folder: Path) -> None:
        """Refuse what cannot work here before anything is submitted."""
        for command in ("sbatch", "squeue", "srun"):
            if shutil.which(command) is None:
                raise ConfigError(
                    f"Cluster {cluster.name!r} is a Slurm, but `{command}` is not on PATH. Log in "
                    "to one of the cluster's machines, or choose another profile with --cluster."
                )
        slurm_script.check(record, cluster, folder)

    def clear(self, record: JobRecord) -> None:
        """Cancel what a killed driver submitted under this name: it waits, or is about to."""
        ids = _when_slurm_answers(lambda: slurm.named(record.name))
        if ids:
            logger.info("Cancelling job %s, which nobody had written down.", ", ".join(ids))
            _when_slurm_answers(lambda: slurm.cancel(ids))

    def start(self, calls: Sequence[Call], cluster: ClusterConfig, files: Path) -> list[str]:
        """Submit calls that ask for the same, several as an array.

        Raises:
            ConfigError: an argument cannot be pickled.
            JobRefusedError: Slurm does not take it.
        """
        has_accounting()
        executor = self._executor(calls[0], cluster, files)
        while True:
            with explain_pickling(calls[0].function):
                submissions = [
                    DelayedSubmission(run_with_lease, call.function, call.args, call.around)
                    for call in calls
                ]
                try:
                    jobs = executor._internal_process_submissions(submissions)
                    return [str(job.job_id) for job in jobs]
                except (FailedJobError, FailedSubmissionError) as error:
                    failed = SlurmError(str(error))
            if not is_passing(failed):
                raise refusal(str(failed), calls[0].record, cluster) from None
            logger.warning("Slurm takes no jobs now (%s); trying on.", failed)
            time.sleep(_RETRY_S)
            # Its answer may have been lost after it took the job.
            self.clear(calls[0].record)

    def render(self, call: Call, cluster: ClusterConfig, files: Path) -> str:
        """Return the script that sbatch would get."""
        executor = self._executor(call, cluster, files)
        text: str = executor._make_submission_file_text(executor._submitit_command_str, "")
        return text

    def look(self, record: JobRecord, attempt: Path, newer_than: float = 0.0) -> Sighting:
        """Look at a job: at the shared answer of squeue, else at the accounting."""
        queue = slurm.queue(newer_than)
        line = _of(record, queue)
        if queue.is_away:
            # It goes on where it was, or nobody can tell: never take silence for an end.
            running = line is not None and line.word in RUNNING
            state: Literal["queued", "running"] = "running" if running else "queued"
            return Sighting(state, line.word if line else "", reason="Slurm does not answer")
        if line is None:
            line = slurm.accounted(record.job_id)
            if line is None or line.name != record.name or line.word in QUEUED | RUNNING:
                return Sighting("gone")
        return self._sight(line, record, attempt)

    def _sight(self, line: slurm.Line, record: JobRecord, attempt: Path) -> Sighting:
        word = line.word.split()[0].rstrip("+")
        if word in QUEUED | RUNNING:
            _returns.is_back(record.job_id)
            if line.reason in _NEVER_STARTS:
                _warn_once(record.key, record.job_id, line.reason)
            state: Literal["queued", "running"] = "queued" if word in QUEUED else "running"
            return Sighting(state, word, line.node, line.reason)
        comes_back = word in _COMES_BACK and record.resources.checkpointable
        if (
            comes_back
            and not record.cancelled
            and not has_outcome(attempt)
            and not _returns.is_lost(record.job_id, word)
        ):
            return Sighting("queued", word, line.node, "comes back into the queue")
        return Sighting("gone", line.word, line.node, line.reason)

    def is_alive(self, record: JobRecord, attempt: Path) -> bool:
        """Whether a job takes a place; while Slurm does not answer, it does."""
        if not record.job_id or has_outcome(attempt):
            return False
        queue = slurm.queue()
        submitted = datetime.fromisoformat(record.submitted_at).timestamp()
        if _of(record, queue) is None and queue.told_at < submitted + _NEW_FOR_S:
            # Perhaps the answer is older than the job.
            queue = slurm.queue(newer_than=time.monotonic())
        line = _of(record, queue)
        return queue.is_away or (line is not None and line.word in QUEUED | RUNNING)

    def end(self, jobs: Sequence[tuple[JobRecord, Path]]) -> None:
        """Cancel jobs, and wait until they are gone.

        Should Slurm be away, the lease that their driver gives up ends those that run.
        """
        began = time.monotonic()
        alive = self._alive(jobs, newer_than=began)
        try:
            # What still queues has nothing to unwind, and hears no signal but the last.
            queued = self._alive(jobs, newer_than=began, words=QUEUED)
            slurm.cancel([record.job_id for record in queued])
            slow = [
                record
                for record in alive
                if record.unwind_seconds > _SHORT_UNWIND_S and record not in queued
            ]
            if slow:
                slurm.cancel([record.job_id for record in slow], signal="TERM")
                self._wait(jobs, seconds=max(record.unwind_seconds for record in slow))
                alive = self._alive(jobs, newer_than=time.monotonic())
            if alive:
                slurm.cancel([record.job_id for record in alive])
                self._wait(jobs, seconds=_kill_wait() + _SHORT_UNWIND_S)
        except SlurmError as error:
            logger.warning(
                "Slurm cannot cancel %d jobs now (%s); they end with their lease.",
                len(alive),
                error,
            )

    def _alive(
        self,
        jobs: Sequence[tuple[JobRecord, Path]],
        newer_than: float,
        words: frozenset[str] = QUEUED | RUNNING,
    ) -> list[JobRecord]:
        queue = slurm.queue(newer_than)
        lines = [(record, _of(record, queue)) for record, _ in jobs if record.job_id]
        return [
            record
            for record, line in lines
            if queue.is_away or (line is not None and line.word in words)
        ]

    def _wait(self, jobs: Sequence[tuple[JobRecord, Path]], seconds: float) -> None:
        until = time.monotonic() + seconds
        pause = 0.25
        while self._alive(jobs, newer_than=time.monotonic()) and time.monotonic() < until:
            time.sleep(pause)
            pause = min(2.0, pause * 1.5)

    def _executor(self, call: Call, cluster: ClusterConfig, files: Path) -> CleanExecutor:
        executor = CleanExecutor(files, python=slurm_script.python(cluster))
        executor.update_parameters(**slurm_script.parameters(call, cluster))
        return executor


class _Returns:
    """Sees to it that jobs which may go on do come back into the queue."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[str, float] = {}
        self._asked: dict[str, float] = {}

    def is_back(self, job_id: str) -> None:
        """Note that the job is in the queue."""
        with self._lock:
            self._since.pop(job_id, None)
            self._asked.pop(job_id, None)

    def is_lost(self, job_id: str, word: str) -> bool:
        """Whether the job has ended for good; asks for its requeue where Slurm did not do it."""
        with self._lock:
            now = time.monotonic()
            since = self._since.setdefault(job_id, now)
            if now - self._asked.setdefault(job_id, now) > _ASK_AGAIN_S:
                self._asked[job_id] = now
                answer = slurm.requeue(job_id)
                logger.info("Job %s ended as %s; asked for its requeue. %s", job_id, word, answer)
            return now - since > _GIVEN_UP_S


_returns = _Returns()


@functools.cache
def _warn_once(key: str, job_id: str, reason: str) -> None:
    logger.warning(
        "Job %s (Slurm job %s) cannot start as it is: Slurm says %s. See `scontrol show job %s`; "
        "cancel it, or wait until somebody changes the limits.",
        key, job_id, reason, job_id,
    )  # fmt: skip


def _of(record: JobRecord, queue: slurm.Queue) -> slurm.Line | None:
    """Return what the queue says of the job. The name tells whether the id still means it."""
    line = queue.get(record.job_id)
    return line if line is not None and line.name == record.name else None


def _kill_wait() -> float:
    digits = setting("KillWait", "30").split()[0]
    return float(digits) if digits.isdigit() else 30.0


def _when_slurm_answers(ask: Callable[[], T]) -> T:
    told = False
    while True:
        try:
            return ask()
        except SlurmError as error:
            if not told:
                logger.warning("Slurm does not answer (%s); waiting until it does.", error)
            told = True
            time.sleep(_RETRY_S)
