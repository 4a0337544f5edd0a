"""One submitted job as its driver sees it: state, value, logs, end.

job = submit(...)            # infra.jobs makes it
checkpoint = job.result()
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from submitit.core.utils import JobPaths, pickle_load

from ccai_core import errors
from ccai_core.errors import JobError
from infra import local_jobs
from infra.job_process import UNWIND_S, Refusal
from infra.job_record import JobRecord, read_record, submit_lock, write_record
from infra.lease import Lease

T = TypeVar("T")

JobState = Literal["running", "finished", "failed", "cancelled", "lost"]
"""finished: returned a value; failed: raised; lost: ended without saying anything."""

_TAIL_LINES = 15
_TAIL_BYTES = 16_384


class Job(Generic[T]):
    """A submitted function. While this object's lease runs, the job knows that it is wanted."""

    def __init__(self, home: Path, record: JobRecord, lease: Lease) -> None:
        """Refer to the attempt that `record` describes, in the key's folder `home`."""
        self.key = record.key
        self.attempt = record.attempt
        self._home = home
        self._record = record
        self._lease = lease
        self._folder = home / record.folder_name
        self._paths = JobPaths(self._folder, job_id=record.job_id, task_id=0)

    def state(self) -> JobState:
        """Look at the job now."""
        # Life is asked first: a job that ends in between has then left its result.
        alive = self._is_alive()
        if self._has_result():
            return "finished" if self._succeeded() else "failed"
        if alive:
            return "running"
        return "cancelled" if self._was_cancelled() else "lost"

    def result(self, poll: float = 0.5, on_poll: Callable[[], None] | None = None) -> T:
        """Wait for the job and return what its function returned.

        Calls `on_poll` at every look, each `poll` seconds. Whatever interrupts the wait
        (KeyboardInterrupt, a cancellation, an error of `on_poll`) cancels the job and goes on up.

        Raises:
            CCAIError: the same class and message that the function raised.
            JobError: the function raised anything else, or the job ended without a result.
        """
        try:
            self._wait(poll, on_poll)
            self._clean_up()
        except BaseException:
            self.cancel()
            raise
        return self._value()

    def cancel(self) -> None:
        """End the job and every process it started; one that is over stays as it is."""
        if not self._has_result():
            self._mark_cancelled()
        self._clean_up()

    def logs(self) -> tuple[Path, Path]:
        """Return the files of the job's standard output and standard error."""
        return self._paths.stdout, self._paths.stderr

    def _is_alive(self) -> bool:
        return local_jobs.is_alive(self._record.job_id, self._folder)

    def _has_result(self) -> bool:
        # submitit renames without fsync: after a power cut the file can be there and empty.
        path = self._paths.result_pickle
        return bool(path.exists() and path.stat().st_size > 0)

    def _wait(self, poll: float, on_poll: Callable[[], None] | None) -> None:
        """Return when the processes are gone, so that memory and GPU are free for the next job.

        A job that has left its result but does not exit (a thread that never ends) is not waited
        for longer than `UNWIND_S`.
        """
        leave_at = math.inf
        while self._is_alive() and time.monotonic() < leave_at:
            if on_poll is not None:
                on_poll()
            if leave_at == math.inf and self._has_result():
                poll, leave_at = min(poll, 0.05), time.monotonic() + UNWIND_S
            time.sleep(poll)

    def _clean_up(self) -> None:
        """End what is left of the job, children of a crashed one included, and give up its lease.

        The lease goes last: should this be interrupted, the job still ends when it runs out.
        """
        local_jobs.end(self._folder)
        self._lease.release()

    def _mark_cancelled(self) -> None:
        with submit_lock(self._home.parent):
            if read_record(self._home) == self._record:
                write_record(self._home, self._record.model_copy(update={"cancelled": True}))

    def _was_cancelled(self) -> bool:
        current = read_record(self._home)
        return current is not None and current.cancelled and self._is_mine(current)

    def _is_mine(self, record: JobRecord) -> bool:
        return (record.attempt, record.job_id) == (self.attempt, self._record.job_id)

    def _outcome(self) -> tuple[str, Any]:
        """Return submitit's ("success", value) or ("error", traceback)."""
        unreadable = (OSError, EOFError, AttributeError, ImportError, pickle.UnpicklingError)
        try:
            kind, value = pickle_load(self._paths.result_pickle)
        except unreadable as error:
            raise JobError(
                f"The result of job {self.key!r} cannot be read ({error!r}); another version of "
                f"the code may have written it. Remove {self._home} to run it again."
            ) from error
        return kind, value

    def _succeeded(self) -> bool:
        kind, value = self._outcome()
        return kind == "success" and not isinstance(value, Refusal)

    def _value(self) -> T:
        if not self._has_result():
            raise JobError(self._ended_without_result())
        kind, value = self._outcome()
        if isinstance(value, Refusal):
            refused: type[errors.CCAIError] = getattr(errors, value.kind)
            raise refused(value.message)
        if kind != "success":
            last = str(value).strip().splitlines()[-1]
            raise JobError(f"{self._name()} failed: {last}{self._tail()}")
        return value  # type: ignore[no-any-return]  # what the function returned, from a pickle

    def _ended_without_result(self) -> str:
        if self._was_cancelled():
            return f"{self._name()} was cancelled. The same command starts a new attempt."
        return (
            f"{self._name()} ended without a result: it crashed, was killed (most often for want "
            "of memory) or had lost its driver. The same command starts a new attempt."
            f"{self._tail()}"
        )

    def _name(self) -> str:
        return f"Job {self.key!r} (attempt {self.attempt})"

    def _tail(self) -> str:
        """Return the last lines of what the job wrote to standard error, and where the rest is."""
        for path in (self._paths.stderr, self._folder / "controller.log"):
            lines = _last_lines(path)
            if lines:
                return "\n".join([f"\nLast lines of {path}:", *(f"  {line}" for line in lines)])
        return f"\nIt wrote nothing to {self._paths.stderr}."


def _last_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    return text.rstrip().splitlines()[-_TAIL_LINES:]
