"""Group commit: one thread writes what many callers have to record, with one sync for all of it.

A sync takes milliseconds on a local disk and tens on a shared one, and an engine may answer a
thousand calls a second. So records gather for a moment, and are written together while the next
ones gather. Nobody is told that a record is written before it is on the disk.

    writer = GroupWriter(journal.append)
    await asyncio.wrap_future(writer.put(key, record))
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from ccai_core.journal_lines import Record

# Long enough that a busy run syncs seldom, short beside the seconds that a text takes.
_GATHER_S = 0.025

Append = Callable[[Sequence[tuple[str, Record]]], None]


class GroupWriter:
    """Hands records to `append` in the order in which they came, many at a time."""

    def __init__(self, append: Append, gather_seconds: float = _GATHER_S) -> None:
        self._append, self._gather_seconds = append, gather_seconds
        self._changed = threading.Condition()
        self._records: list[tuple[str, Record]] = []
        self._written: Future[None] = Future()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, key: str, record: Record) -> Future[None]:
        """Take a record; what is returned is done, for all that were written with it, when it is.

        Raises:
            RuntimeError: the writer is closed.
        """
        with self._changed:
            if self._closing.is_set():
                raise RuntimeError("this writer is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
                self._thread.start()
            self._records.append((key, record))
            self._changed.notify()
            return self._written

    def close(self) -> None:
        """Write what is left, and end."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        if self._thread:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._records or self._closing.is_set())
                if not self._records:
                    return
            self._closing.wait(self._gather_seconds)
            with self._changed:
                records, self._records = self._records, []
                written, self._written = self._written, Future()
            try:
                self._append(records)
            except Exception as error:  # noqa: BLE001 - every caller gets the real error
                written.set_exception(error)
            else:
                written.set_result(None)
