"""A thin and polite client of Slurm's commands: one question for all jobs, asked now and then.

Every job of this process looks at one shared answer of `squeue`. It is asked for again when it is
some seconds old; the more jobs there are and the longer Slurm takes to answer, the more seconds.
`sacct` is asked only about jobs that `squeue` no longer knows, all at once.

    queue().get("4711")          # Line(word="RUNNING", node="node7", ...)
    cancel(["4711", "4712_3"])
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from infra.slurm_command import SlurmError, conf, has_accounting, is_passing, run

logger = logging.getLogger(__name__)

_EVERY_S = 2.0
_AT_MOST_S = 10.0  # a cancelled job is to be noticed within 30 s
_FORMAT = "%i|%T|%N|%M|%j|%r"
_IDS_AT_ONCE = 500


@dataclass(frozen=True)
class Line:
    """What Slurm says of one job."""

    job_id: str
    word: str
    """Its state: PENDING, RUNNING, COMPLETED, ..."""
    node: str = ""
    seconds: float = 0.0
    """Run time since the last start."""
    name: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Queue:
    """One answer of `squeue`: all of this user's jobs that Slurm has in memory."""

    asked_at: float
    """By the monotonic clock."""
    lines: dict[str, Line] = field(default_factory=dict)
    told_at: float = 0.0
    """By the clock on the wall."""
    is_away: bool = False
    """Slurm does not answer; this is what it said last."""

    def get(self, job_id: str) -> Line | None:
        """Return what it says of a job, None when the job is not there."""
        return self.lines.get(job_id)


class _Watch:
    """The shared answer of `squeue`, and when to ask for the next one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue = Queue(asked_at=float("-inf"))
        self._next_at = 0.0
        self._pause = _EVERY_S

    def look(self, newer_than: float) -> Queue:
        with self._lock:
            now = time.monotonic()
            # Even who needs a fresh answer waits while Slurm is away.
            is_stale = self._queue.asked_at < newer_than and not self._queue.is_away
            if now >= self._next_at or is_stale:
                self._ask(now)
            return self._queue

    def _ask(self, now: float) -> None:
        told_at = time.time()
        try:
            text = run("squeue", "--me", "-r", "-h", "-t", "all", "-o", _FORMAT)
        except SlurmError as error:
            if not self._queue.is_away:
                logger.warning("Slurm does not answer (%s); waiting until it does.", error)
            self._queue = replace(self._queue, is_away=True)
            self._pause = min(_AT_MOST_S, self._pause * 1.5)
        else:
            if self._queue.is_away:
                logger.info("Slurm answers again.")
            lines = [_line(each) for each in text.splitlines() if each.count("|") >= 5]
            self._queue = Queue(now, {line.job_id: line for line in lines}, told_at)
            took = time.monotonic() - now
            self._pause = min(_AT_MOST_S, max(_EVERY_S, 10 * took, len(lines) / 500))
        self._next_at = time.monotonic() + self._pause


@functools.cache
def _watch(conf: str) -> _Watch:
    return _Watch()


def queue(newer_than: float = 0.0) -> Queue:
    """Return the latest answer of `squeue`.

    Args:
        newer_than: a time of the monotonic clock; an older answer will not do.
    """
    return _watch(conf()).look(newer_than)


class _Books:
    """What the accounting says of jobs that `squeue` has forgotten: asked rarely, for all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Line] = {}
        self._wanted: set[str] = set()
        self._next_at = 0.0

    def look(self, job_id: str) -> Line | None:
        with self._lock:
            is_new = job_id not in self._wanted and job_id not in self._known
            if job_id not in self._known:
                self._wanted.add(job_id)
                if is_new or time.monotonic() >= self._next_at:
                    self._ask()
                    self._next_at = time.monotonic() + _AT_MOST_S
            return self._known.get(job_id)

    def _ask(self) -> None:
        for some in _chunks(sorted(self._wanted)):
            command = ["sacct", "-n", "-P", "-X", "-j", ",".join(some)]
            try:
                text = run(*command, "-o", "JobID,State,NodeList,ElapsedRaw,JobName")
            except SlurmError as error:
                logger.warning("sacct does not answer (%s).", error)
                return
            for each in text.splitlines():
                job_id, word, node, seconds, name = each.split("|", 4)
                if job_id in self._wanted:
                    self._known[job_id] = Line(job_id, word, node, float(seconds or 0), name)
                    self._wanted.discard(job_id)


@functools.cache
def _books(conf: str) -> _Books:
    return _Books()


def accounted(job_id: str) -> Line | None:
    """Return what the accounting says of a job that is over; None without accounting."""
    return _books(conf()).look(job_id) if has_accounting() else None


def details(job_id: str) -> dict[str, str]:
    """Return all that Slurm has in memory about one job, empty once it has forgotten it."""
    try:
        text = run("scontrol", "show", "job", "-o", job_id)
    except SlurmError:
        return {}
    # Only words without blanks are of interest here.
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


def exit_code(job_id: str) -> str:
    """Return "code:signal" of an ended job, empty where nobody knows."""
    said = details(job_id).get("ExitCode")
    if said is None and has_accounting():
        try:
            said = run("sacct", "-n", "-P", "-X", "-j", job_id, "-o", "ExitCode").strip()
        except SlurmError:
            said = None
    return said or ""


def cancel(job_ids: Sequence[str], signal: str | None = None) -> None:
    """End jobs, or send their steps a signal. Those that are over already are no error.

    Raises:
        SlurmError: Slurm does not answer.
    """
    how = [] if signal is None else [f"--signal={signal}"]
    for some in _chunks(list(job_ids)):
        try:
            run("scancel", *how, *some)
        except SlurmError as error:
            if is_passing(error):
                raise
            logger.debug("scancel: %s", error)


def requeue(job_id: str) -> str:
    """Put a job back into the queue; return what Slurm has to say against it."""
    try:
        return run("scontrol", "requeue", job_id).strip()
    except SlurmError as error:
        return str(error)


def named(name: str) -> list[str]:
    """Return the ids of this user's jobs of that name that are not over yet.

    Raises:
        SlurmError: Slurm does not answer.
    """
    text = run("squeue", "--me", "-h", "-o", "%A", f"--name={name}")
    return sorted(set(text.split()))


def _chunks(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[at : at + _IDS_AT_ONCE] for at in range(0, len(ids), _IDS_AT_ONCE)]


def _line(text: str) -> Line:
    job_id, word, node, ran, name, reason = text.split("|", 5)
    return Line(job_id, word, node, _seconds(ran), name, reason)


def _seconds(ran: str) -> float:
    """Read Slurm's [days-][hours:]minutes:seconds."""
    days, _, rest = ran.rpartition("-")
    total = 0
    for part in rest.split(":"):
        if not part.isdigit():
            return 0.0
        total = total * 60 + int(part)
    return float(total + 86400 * int(days or 0))
