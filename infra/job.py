"""One submitted job as its driver sees it: state, value, logs, end.

job = submit(...)            # infra.jobs makes it
checkpoint = job.result()
"""

from __future__ import annotations

import functools
import logging
import math
import pickle
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from submitit.core.utils import JobPaths

from ccai_core import errors
from ccai_core.errors import JobError
from infra.backends import Sighting, backend
from infra.job_endings import ended_without_result, name_of, tail
from infra.job_files import Outcome, announced, has_outcome, read_outcome, seconds_run
from infra.job_record import JobRecord, mark_cancelled, read_record
from infra.lease import Hold

T = TypeVar("T")

JobState = Literal["queued", "running", "finished", "failed", "cancelled", "lost"]
"""queued: waits for its place; finished: returned a value; failed: raised, or was ended by the
scheduler; lost: ended without saying anything."""

logger = logging.getLogger(__name__)

_LIVE = frozenset({"queued", "running"})
_AWAY_S = 600.0
"""How long a file system may be away while a job is waited for."""


@dataclass(frozen=True)
class JobStatus:
    """What is known of a job at one moment."""

    state: JobState
    word: str = ""
    """The scheduler's own word for its state, e.g. PENDING."""
    reason: str = ""
    """Why it waits, in the scheduler's words."""
    node: str = ""
    restarts: int = 0
    seconds: float = 0.0
    """Run time so far, all starts together."""
    gpu_hours: float = 0.0


class _Patience:
    """Bears with a file system that is away for a while: a job of many hours is not lost for it."""

    def __init__(self, key: str) -> None:
        self._key, self._until = key, math.inf

    def bear(self, error: OSError) -> None:
        """Note a failed look; raise `error` when there was no other for too long."""
        now = time.monotonic()
        if self._until == math.inf:
            self._until = now + _AWAY_S
            logger.warning("Job %s cannot be looked at (%s); trying on.", self._key, error)
        elif now > self._until:
            raise error

    def renew(self) -> None:
        """Note a look that succeeded."""
        self._until = math.inf


class Job(Generic[T]):
    """A submitted function. While this object holds its lease, the job knows that it is wanted."""

    def __init__(self, home: Path, record: JobRecord, hold: Hold) -> None:
        """Refer to the attempt that `record` describes, in the key's folder `home`."""
        self.key = record.key
        self.attempt = record.attempt
        self.job_id = record.job_id
        self._home = home
        self._record = record
        self._hold = hold
        self._folder = home / record.folder_name
        self._backend = backend(record.backend)
        self._paths = JobPaths(record.files or self._folder, job_id=record.job_id, task_id=0)
        self._known_since = time.monotonic()
        self._gone_at: float | None = None

    def state(self) -> JobState:
        """Look at the job now."""
        return self._state(self._look())

    def status(self) -> JobStatus:
        """Look at the job now, and say more of it than its state."""
        sight = self._look()
        seconds = seconds_run(self._folder)
        return JobStatus(
            state=self._state(sight),
            word=sight.word,
            reason=sight.reason,
            node=sight.node,
            restarts=announced(self._folder) or 0,
            seconds=seconds,
            gpu_hours=self._record.resources.all_gpus * seconds / 3600,
        )

    def result(self, poll: float = 0.5, on_poll: Callable[[], None] | None = None) -> T:
        """Wait for the job, however long it queues, and return what its function returned.

        Calls `on_poll` at every look, each `poll` seconds. Whatever interrupts the wait
        (KeyboardInterrupt, a cancellation, an error of `on_poll`) cancels the job and goes on up.

        Raises:
            CCAIError: the same class and message that the function raised.
            JobError: the function raised anything else, or the job ended without a result; the
                subclass says how.
        """
        try:
            sight = self._wait(poll, on_poll)
            self._clean_up(sight)
        except BaseException:
            self.cancel()
            raise
        return self._value(sight)

    def cancel(self) -> None:
        """End the job and every process it started; one that is over stays as it is."""
        cancel_all([self])

    def logs(self) -> tuple[Path, Path]:
        """Return the files of the job's standard output and standard error."""
        return self._paths.stdout, self._paths.stderr

    def settled_state(self) -> JobState:
        """Look at the job, and wait until its last files have arrived if it has just ended."""
        state = self.state()
        while state in _LIVE and self._gone_at is not None:
            time.sleep(0.5)
            state = self.state()
        return state

    def _look(self, newer_than: float = 0.0) -> Sighting:
        # Life is asked first: a job that ends in between has then left its outcome.
        newer_than = max(newer_than, self._known_since)
        return self._backend.look(self._record, self._folder, newer_than)

    def _state(self, sight: Sighting) -> JobState:
        if has_outcome(self._folder):
            return "finished" if self._succeeded() else "failed"
        if sight.state != "gone":
            self._gone_at = None
            return sight.state
        if self._gone_at is None:
            self._gone_at = time.monotonic()
        if self._was_cancelled() or sight.word.startswith("CANCELLED"):
            return "cancelled"
        if time.monotonic() - self._gone_at < self._backend.settle_seconds:
            # A network file system remembers for up to a minute that a file is not there; to set
            # the folder's mode, as it is, makes it look at its server again.
            self._folder.chmod(stat.S_IMODE(self._folder.stat().st_mode))
            return "running"
        return "lost" if sight.word in {"", "COMPLETED"} else "failed"

    def _wait(self, poll: float, on_poll: Callable[[], None] | None) -> Sighting:
        """Return when the processes are gone, so that memory and GPU are free for the next job.

        A job that has left its outcome but does not exit (a thread that never ends) is not waited
        for longer than it may take to unwind.
        """
        leave_at = math.inf
        newer_than = 0.0
        patience = _Patience(self.key)
        while True:
            try:
                sight = self._look(newer_than)
                is_over = self._state(sight) not in _LIVE
            except OSError as error:
                patience.bear(error)
                time.sleep(poll)
                continue
            patience.renew()
            if (is_over and sight.state == "gone") or time.monotonic() > leave_at:
                return sight
            if on_poll is not None:
                on_poll()
            if is_over:
                newer_than = time.monotonic() - 0.5
                if leave_at == math.inf:
                    leave_at = time.monotonic() + self._record.unwind_seconds
                    poll = min(poll, self._backend.poll_at_end)
            time.sleep(poll)

    def _clean_up(self, sight: Sighting) -> None:
        """End what is left of the job, children of a crashed one included, and give up its lease.

        The lease goes last: should this be interrupted, the job still ends when it runs out.
        """
        if sight.state != "gone" or not self._backend.leaves_nothing:
            self._backend.end([(self._record, self._folder)])
        self._hold.release()

    def _was_cancelled(self) -> bool:
        current = read_record(self._home)
        return current is not None and current.cancelled and self._is_mine(current)

    def _is_mine(self, record: JobRecord) -> bool:
        return (record.attempt, record.job_id) == (self.attempt, self._record.job_id)

    def _outcome(self) -> Outcome | None:
        unreadable = (OSError, EOFError, AttributeError, ImportError, pickle.UnpicklingError)
        try:
            return read_outcome(self._folder)
        except unreadable as error:
            raise JobError(
                f"The result of job {self.key!r} cannot be read ({error!r}); another version of "
                f"the code may have written it. Remove {self._home} to run it again."
            ) from error

    def _succeeded(self) -> bool:
        outcome = self._outcome()
        return outcome is not None and outcome.kind == "value"

    def _value(self, sight: Sighting) -> T:
        outcome = self._outcome()
        if outcome is None:
            record = self._record
            if self._was_cancelled():
                record = record.model_copy(update={"cancelled": True})
            raise ended_without_result(record, sight, self._paths)
        if outcome.kind == "value":
            return outcome.value  # type: ignore[no-any-return]  # the function's, from a pickle
        if outcome.kind == "refusal":
            refused: type[errors.CCAIError] = getattr(errors, outcome.error)
            raise refused(outcome.value)
        if outcome.kind == "ended":
            kind: type[JobError] = getattr(errors, outcome.error)
            raise kind(f"{name_of(self._record)} was ended. {outcome.value}{tail(self._paths)}")
        raise JobError(f"{name_of(self._record)} failed: {outcome.value}{tail(self._paths)}")


def cancel_all(jobs: Sequence[Job[Any]]) -> None:
    """End jobs, all of a backend at once; those that are over stay as they are."""
    for job in jobs:
        if not has_outcome(job._folder):
            mark_cancelled(job._home, job._record)
    by_kind = functools.partial(sorted, key=lambda job: job._record.backend)
    for _, some in groupby(by_kind(jobs), key=lambda job: job._record.backend):
        together = list(some)
        together[0]._backend.end([(job._record, job._folder) for job in together])
    for job in jobs:
        job._hold.release()
