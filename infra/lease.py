"""A lease: a file its owner keeps touching, so that others can tell that the owner is still there.

A driver holds the lease of each job it started; the job watches it and ends itself when the
renewals stop. No message, port or signal is needed, and kill -9 of the owner is noticed like
any other death.

    with Lease(folder / "lease"):                      # in the driver
        ...
    watch(folder / "lease", 60, on_expired=end_me)     # in the job
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

logger = logging.getLogger(__name__)


class Lease:
    """Keeps a file's modification time fresh from a daemon thread until it is stopped.

    Leaving the `with` block stops the renewals but leaves the file, so that whoever watches it
    still waits its full time and another owner can take over. `release()` also removes the file,
    which tells the watcher at once that nobody will come.
    """

    def __init__(self, path: Path, every: float = 5.0) -> None:
        """Prepare a lease at `path`, renewed each `every` seconds once started."""
        self.path = path
        self.every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease {path}", daemon=True)

    def start(self) -> Lease:
        """Touch the file now (so that it exists when this returns) and keep renewing it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop renewing; the file stays. Calling it again does nothing."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def release(self) -> None:
        """Stop renewing and remove the file: the watcher need not wait."""
        self.stop()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Lease:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _renew(self) -> None:
        warned = False
        while not self._stop.wait(self.every):
            try:
                self.path.touch()
                warned = False
            except OSError as error:
                # A file system that is away for a moment must not end the renewals for good.
                if not warned:
                    logger.warning("Lease %s cannot be renewed (%s); trying on.", self.path, error)
                warned = True


class Hold(Protocol):
    """What a job needs of a lease: to be told that it is not needed for this job any more."""

    def release(self) -> None:
        """Give the lease up as far as this job goes."""


class Lent:
    """A lease that somebody else owns: giving it up is not for the job to do."""

    def release(self) -> None:
        """Leave the lease alone."""


class Shared:
    """A lease of several jobs, given up once each of them has done so."""

    def __init__(self, lease: Lease, jobs: int) -> None:
        """Hold `lease` for that many jobs."""
        self._lease = lease
        self._jobs = jobs
        self._lock = threading.Lock()

    def part(self) -> Hold:
        """Return one job's part; giving it up twice counts once."""
        return _Part(self)

    def give_up(self) -> None:
        """Count one job less."""
        with self._lock:
            self._jobs -= 1
            if self._jobs == 0:
                self._lease.release()


class _Part:
    def __init__(self, shared: Shared) -> None:
        self._shared: Shared | None = shared

    def release(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.give_up()


def age(path: Path) -> float | None:
    """Return the seconds since the last renewal by this machine's clock, or None if there is none.

    For people and reports only. Wall clocks jump and differ between machines, so nothing is ended
    because of this number: that is what `watch` is for.
    """
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return None


def watch(path: Path, seconds: float, on_expired: Callable[[], None]) -> threading.Event:
    """Call `on_expired` once, from a daemon thread, when nobody renews the lease for `seconds`.

    A lease file that is gone counts as expired at once. Set the returned event to stop watching.
    """
    stop = threading.Event()
    threading.Thread(
        target=_watch, args=(path, seconds, on_expired, stop), name=f"watch {path}", daemon=True
    ).start()
    return stop


def _watch(
    path: Path, seconds: float, on_expired: Callable[[], None], stop: threading.Event
) -> None:
    """Count the looks at which the file's time had not changed, and compare no clocks at all.

    `now - mtime` would be wrong after a clock was set, and on a network file system whose server
    has another clock. A monotonic clock is not enough either: it runs on while a virtual machine
    or a stopped process does not. Counting looks needs neither. While a laptop is asleep nobody
    looks, so nothing is counted, and after it wakes the driver still has all the looks it had
    left: at least `seconds` less one renewal period. A machine that is too busy to look in time
    errs towards waiting longer.
    """
    interval = min(1.0, seconds / 10)
    needed = seconds / interval
    unchanged, last = 0, _modified(path, None)
    while not stop.wait(interval):
        current = _modified(path, last)
        unchanged = unchanged + 1 if current == last else 0
        last = current
        if current is None or unchanged >= needed:
            on_expired()
            return


def _modified(path: Path, last: int | None) -> int | None:
    """Return the file's time; `last` where the file system cannot say: that is no renewal."""
    try:
        # Opened, not only looked at: a network file system then asks its server for the time,
        # which it may otherwise remember for longer than a lease lasts.
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
    except OSError:
        return last
