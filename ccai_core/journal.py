"""The append-only record of finished calls: what makes generation and evaluation resumable.

One checksummed JSON line a call, keyed by content. A torn last line (the writer was killed) is cut
off when the journal is opened; calls of a batch that was not written whole are forgotten, so that
the batch is computed again as it was. One process at a time writes to it; anybody may look. Texts
stay in the file: in memory there is an index of some 30 bytes a call.

    with Journal.open(path) as journal:
        engine = Recorded(engine, journal)      # replays what is known, records what is new

    python -m ccai_core.journal verify FILE     # and: stats FILE, repair FILE, compact FILE
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from ccai_core.errors import ArtifactError, DataError
from ccai_core.journal_index import OffsetIndex, hash_of
from ccai_core.journal_lines import Record, Scores, decode, encode, read_heads
from ccai_core.journal_writer import GroupWriter
from ccai_core.recorded import Recorded

__all__ = ["Journal", "Recorded", "Scores", "main"]

log = logging.getLogger(__name__)

_PAGE = 4096  # most lines are shorter


class Journal:
    """Finished calls by key, in a file that is only ever appended to."""

    def __init__(self, path: Path, index: OffsetIndex, descriptor: int, lock: FileLock) -> None:
        self.path, self._index, self._lock = path, index, lock
        self._file: int | None = descriptor
        self._end = os.fstat(descriptor).st_size
        self._turn = threading.Lock()
        self._writer = GroupWriter(self.append)

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Read what is there, cut a torn last line, and be ready to append.

        Raises:
            ArtifactError: another process has it open, or it cannot be written.
            DataError: a line before the last is damaged; names file, line and the way out.
        """
        lock = lock_for_writing(path)
        try:
            index, end = _load(path)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            if (torn := os.fstat(descriptor).st_size - end) > 0:
                log.info("%s: cut off a torn last line of %d bytes", path, torn)
                os.ftruncate(descriptor, end)
        except OSError as error:
            lock.release()
            raise ArtifactError(f"{path}: cannot be opened ({error.strerror}).") from None
        except BaseException:
            lock.release()
            raise
        return cls(path, index, descriptor, lock)

    def close(self) -> None:
        """Write what still gathers and let go of the file; more appends are refused."""
        self._writer.close()
        with self._turn:
            if self._file is not None:
                os.close(self._file)
                self._file = None
                self._lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._index)

    def offsets(self) -> list[int]:
        """Return where in the file the calls that a run would replay begin, in order."""
        return self._index.offsets()

    def keys(self) -> Iterator[str]:
        """Yield their keys, in the order of the file."""
        for offset in self.offsets():
            yield self._read(offset)[0]

    def get(self, key: str) -> Record | None:
        """Return what a call was answered, if it is recorded.

        Raises:
            DataError: its line has been damaged since the journal was opened.
        """
        offset = self._index.find(key)
        if offset is None:
            return None
        found, record = self._read(offset)
        return record if found == key else None

    def append(self, records: Sequence[tuple[str, Record]]) -> None:
        """Write finished calls as one durable append.

        Raises:
            ArtifactError: it cannot be written (disk full, closed); nothing of it stays.
        """
        lines = [encode(key, record) for key, record in records]
        with self._turn:
            start = self._end
            self._write(b"".join(lines))
            for (key, _), line in zip(records, lines, strict=True):
                self._index.add(key, start)
                start += len(line)

    def put(self, key: str, record: Record) -> Future[None]:
        """Record a call together with others that finish at about this time.

        What is returned is done when the record is on the disk, and raises as `append` does.

        Raises:
            ArtifactError: the journal is closed.
        """
        try:
            return self._writer.put(key, record)
        except RuntimeError:
            raise self._is_closed() from None

    def _write(self, data: bytes) -> None:
        if self._file is None:
            raise self._is_closed()
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError as error:
            # Half a line would be damage once another line followed it.
            os.ftruncate(self._file, self._end)
            raise ArtifactError(
                f"{self.path}: cannot be written ({error.strerror}). What was recorded before is "
                "safe: make room and start again, it goes on from there."
            ) from None
        self._end += len(data)

    def _read(self, offset: int) -> tuple[str, Record]:
        if self._file is None:
            raise self._is_closed()
        line = b""
        while not line.endswith(b"\n"):
            page = os.pread(self._file, _PAGE, offset + len(line))
            ended = page.find(b"\n")
            line += page if ended < 0 else page[: ended + 1]
            if not page:
                break
        if found := decode(line):
            return found
        raise DataError(
            f"{self.path}: the record at byte {offset} has changed since the journal was opened. "
            f"Run `python -m ccai_core.journal repair {self.path}` and start again."
        )

    def _is_closed(self) -> ArtifactError:
        return ArtifactError(
            f"{self.path}: is closed; a call finished too late to be recorded, or is asked for."
        )


def lock_for_writing(path: Path) -> FileLock:
    """Return the lock of the one process that writes to a journal.

    Raises:
        ArtifactError: another process has it, or the folder cannot be written.
    """
    # Not thread_local: a journal may be closed by another thread than the one that opened it.
    lock = FileLock(f"{path}.lock", thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise ArtifactError(
            f"{path}: another process is writing to this journal. Wait for it, end it, or choose "
            "another workspace."
        ) from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written ({error.strerror}).") from None
    return lock


def _load(path: Path) -> tuple[OffsetIndex, int]:
    """Return where all records are, and the offset after the last whole line."""
    index, end = OffsetIndex(), 0
    if not path.exists():
        return index, end
    numbers, offsets = array("Q"), array("Q")
    batches: dict[int, tuple[str, int]] = {}
    for line in read_heads(path):
        if line.key is None:
            raise DataError(
                f"{path} line {line.number}: is damaged, or of another version. Nothing else is "
                f"lost: `python -m ccai_core.journal repair {path}` sets damaged lines aside "
                "(their calls are then made again)."
            )
        number = hash_of(line.key)
        numbers.append(number)
        offsets.append(line.start)
        if line.batch:
            batches[number] = line.batch, line.batch_size
        elif batches:
            batches.pop(number, None)
        end = line.end
    index.fill(numbers, offsets, without=not_whole(batches))
    return index, end


def not_whole(batches: dict[int, tuple[str, int]]) -> set[int]:
    """Return which of the calls, by hash, are of a batch that was not written whole.

    What a batch computes depends on all of its calls, so a rest would not come out the same.
    """
    present = Counter(batch for batch, _ in batches.values())
    return {number for number, (batch, size) in batches.items() if present[batch] < size}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `ccai_core.journal_care`."""
    from ccai_core.journal_care import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
