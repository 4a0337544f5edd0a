"""The append-only record of finished calls: what makes generation and evaluation resumable.

One checksummed JSON line a call, keyed by content. A torn last line (the writer was killed) is cut
off when the journal is opened; calls of a batch that was not written whole are forgotten, so that
the batch is computed again as it was. One process at a time writes to it; anybody may look.

    with Journal.open(path) as journal:
        engine = Recorded(engine, journal)      # replays what is known, records what is new

    python -m ccai_core.journal verify FILE     # and: stats FILE, repair FILE
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from ccai_core.errors import ArtifactError, CCAIError, DataError
from ccai_core.journal_lines import Record, Scores, encode, read_lines, repair, stats, whole_batches
from ccai_core.recorded import Recorded

__all__ = ["Journal", "Recorded", "Scores"]

log = logging.getLogger(__name__)


class Journal:
    """Finished calls by key, backed by a file that is only ever appended to."""

    def __init__(
        self, path: Path, known: Mapping[str, Record], descriptor: int, lock: FileLock
    ) -> None:
        self.path, self._known, self._lock = path, dict(known), lock
        self._file: int | None = descriptor

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Read what is there, cut a torn last line, and be ready to append.

        Raises:
            ArtifactError: another process has it open, or it cannot be written.
            DataError: a line before the last is damaged; names file, line and the way out.
        """
        lock = _lock(path)
        try:
            known, end = _load(path)
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
        return cls(path, whole_batches(known), descriptor, lock)

    def close(self) -> None:
        """Let go of the file; more appends are refused."""
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
        return len(self._known)

    def get(self, key: str) -> Record | None:
        """Return what a call was answered, if it is recorded."""
        return self._known.get(key)

    def append(self, records: Sequence[tuple[str, Record]]) -> None:
        """Write finished calls as one durable append.

        Raises:
            ArtifactError: it cannot be written (disk full, closed); nothing of it stays.
        """
        if self._file is None:
            raise ArtifactError(f"{self.path}: is closed; a call finished too late to be recorded.")
        end = os.fstat(self._file).st_size
        data = memoryview(b"".join(encode(key, record) for key, record in records))
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as error:
            # Half a line would be damage once another line followed it.
            os.ftruncate(self._file, end)
            raise ArtifactError(
                f"{self.path}: cannot be written ({error.strerror}). What was recorded before is "
                "safe: make room and start again, it goes on from there."
            ) from None
        self._known.update(records)


def _lock(path: Path) -> FileLock:
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


def _load(path: Path) -> tuple[dict[str, Record], int]:
    """Return all records by key, and the offset after the last whole line."""
    known: dict[str, Record] = {}
    end = 0
    if not path.exists():
        return known, end
    for line, found in read_lines(path):
        if found is None:
            raise DataError(
                f"{path} line {line.number}: is damaged, or of another version. Nothing else is "
                f"lost: `python -m ccai_core.journal repair {path}` sets damaged lines aside "
                "(their calls are then made again)."
            )
        known[found[0]] = found[1]
        end = line.end
    return known, end


def main(arguments: list[str] | None = None) -> int:
    """Run `stats`, `verify` or `repair` on a journal file; 1 when verify finds damage."""
    parser = argparse.ArgumentParser(prog="python -m ccai_core.journal")
    parser.description = "Look after a journal: count its calls, verify or repair its lines."
    parser.add_argument("command", choices=("stats", "verify", "repair"))
    parser.add_argument("file", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        return _run(chosen.command, chosen.file)
    except CCAIError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"{chosen.file}: cannot be used ({error.strerror}).", file=sys.stderr)
    return 2


def _run(command: str, path: Path) -> int:
    if not path.is_file():
        raise DataError(f"{path}: there is no such journal.")
    if command == "repair":
        lock = _lock(path)
        moved = repair(path)
        lock.release()
        print(f"{moved} damaged lines moved to {path}.damaged" if moved else "nothing to repair")
        return 0
    bad: list[int] = []

    def records() -> Iterator[tuple[str, Record] | None]:
        for line, found in read_lines(path):
            if found is None:
                bad.append(line.number)
            yield found

    print(stats(records()))
    if command == "verify" and bad:
        print(f"damaged lines: {', '.join(map(str, bad[:20]))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
