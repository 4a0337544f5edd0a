"""The append-only record of finished calls: what makes generation resumable.

One JSON line a call, keyed by content (model, messages, sampling, seed), checksummed. A torn last
line (the writer was killed) is cut off when the journal is opened; calls of a batch that was not
written whole are forgotten, so that the batch is computed again as it was.

    with Journal.open(path) as journal:
        engine = Recorded(engine, journal)      # replays what is known, records what is new

    python -m ccai_core.journal verify FILE     # and: stats FILE, repair FILE
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from ccai_core.errors import CCAIError, DataError
from ccai_core.types import Call, Completion, Generate

log = logging.getLogger(__name__)


class Journal:
    """Finished calls by key, backed by a file that is only ever appended to."""

    def __init__(self, path: Path, known: dict[str, Completion], file: IO[bytes]) -> None:
        self.path, self._known, self._file = path, known, file

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Read what is there, cut a torn last line, and be ready to append.

        Raises:
            DataError: a line before the last is damaged; names file, line and the way out.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        known: dict[str, Completion] = {}
        end = 0
        if path.exists():
            for line, record in _read(path):
                if record is None:
                    raise DataError(
                        f"{path} line {line.number}: is damaged. Nothing else is lost: "
                        f"`python -m ccai_core.journal repair {path}` sets damaged lines aside "
                        "(their calls are then made again)."
                    )
                known[record[0]] = record[1]
                end = line.end
        file = path.open("ab")
        if file.tell() > end:
            log.info("%s: cut off a torn last line of %d bytes", path, file.tell() - end)
            file.truncate(end)
        return cls(path, _whole_batches(known), file)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Completion | None:
        """Return the recorded completion of a call, if there is one."""
        return self._known.get(key)

    def append(self, records: list[tuple[str, Completion]]) -> None:
        """Write finished calls as one durable append (one write, one fsync)."""
        self._file.write(b"".join(_encode(key, completion) for key, completion in records))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._known.update(records)


class Recorded:
    """A `Generate` that answers from the journal and records what it has to ask.

    Identical calls in flight are asked once. Failures are not recorded: they are tried again by the
    next run.
    """

    def __init__(self, engine: Generate, journal: Journal) -> None:
        self._engine, self._journal = engine, journal
        self._in_flight: dict[str, asyncio.Task[Completion]] = {}
        self._unwritten: list[tuple[str, Completion]] = []
        self._written: asyncio.Future[None] | None = None
        self.replayed = 0
        self.asked = 0

    @property
    def model(self) -> str:
        """Model identity of the engine behind."""
        return self._engine.model

    async def generate(self, call: Call) -> Completion:
        """Answer from the journal, from a call already in flight, or from the engine."""
        key = call.key(self.model)
        if known := self._journal.get(key):
            self.replayed += 1
            return known
        if key not in self._in_flight:
            task = asyncio.create_task(self._ask(key, call))
            self._in_flight[key] = task
            task.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return await self._in_flight[key]

    async def _ask(self, key: str, call: Call) -> Completion:
        completion = await self._engine.generate(call)
        self.asked += 1
        if completion.finish_reason != "error":
            await self._record(key, completion)
        return completion

    async def _record(self, key: str, completion: Completion) -> None:
        # All that finish in one turn of the loop (a batch) share one write and one fsync.
        self._unwritten.append((key, completion))
        if self._written is None:
            loop = asyncio.get_running_loop()
            self._written = loop.create_future()
            loop.call_soon(self._flush, self._written)
        await asyncio.shield(self._written)

    def _flush(self, written: asyncio.Future[None]) -> None:
        records, self._unwritten, self._written = self._unwritten, [], None
        try:
            self._journal.append(records)
        except OSError as error:
            written.set_exception(
                DataError(f"{self._journal.path}: cannot be written ({error.strerror}).")
            )
        else:
            written.set_result(None)


class _Line:
    """A line of the file: its number (from 1), raw bytes and the offset of its end."""

    __slots__ = ("end", "number", "raw")

    def __init__(self, number: int, raw: bytes, end: int) -> None:
        self.number, self.raw, self.end = number, raw, end


def _encode(key: str, completion: Completion) -> bytes:
    body = json.dumps([key, completion.model_dump()], ensure_ascii=False, separators=(",", ":"))
    data = body.encode()
    return b"%08x %b\n" % (zlib.crc32(data), data)


def _decode(raw: bytes) -> tuple[str, Completion] | None:
    try:
        checksum, body = raw[:8], raw[9:-1]
        if int(checksum, 16) != zlib.crc32(body):
            return None
        key, completion = json.loads(body)
        return str(key), Completion.model_validate(completion)
    except ValueError:
        return None


def _read(path: Path) -> Iterator[tuple[_Line, tuple[str, Completion] | None]]:
    """Yield every whole line with its record (None: damaged); a torn last line is not yielded."""
    end = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            end += len(raw)
            if not raw.endswith(b"\n"):
                return
            yield _Line(number, raw, end), _decode(raw)


def _whole_batches(known: dict[str, Completion]) -> dict[str, Completion]:
    present = Counter(c.batch for c in known.values() if c.batch)
    return {key: c for key, c in known.items() if not c.batch or present[c.batch] >= c.batch_size}


def _repair(path: Path) -> int:
    """Keep good lines, move damaged ones to FILE.damaged; return how many were moved."""
    good, bad = path.with_suffix(".repaired"), path.with_suffix(path.suffix + ".damaged")
    moved = 0
    with good.open("wb") as kept, bad.open("ab") as aside:
        for line, record in _read(path):
            (kept if record else aside).write(line.raw)
            moved += record is None
        kept.flush()
        os.fsync(kept.fileno())
    good.replace(path)
    return moved


def _stats(path: Path) -> str:
    reasons: Counter[str] = Counter()
    models: Counter[str] = Counter()
    tokens = damaged = 0
    for _, record in _read(path):
        if record is None:
            damaged += 1
            continue
        reasons[record[1].finish_reason] += 1
        models[record[1].model] += 1
        tokens += record[1].completion_tokens
    counts = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    lines = [f"{sum(reasons.values())} calls ({counts}), {tokens} tokens, {damaged} damaged lines"]
    return "\n".join([*lines, *(f"  {n:>8}  {model}" for model, n in models.most_common())])


def main(arguments: list[str] | None = None) -> int:
    """Run `stats`, `verify` or `repair` on a journal file; 1 when verify finds damage."""
    parser = argparse.ArgumentParser(prog="python -m ccai_core.journal")
    parser.description = "Look after a journal: count its calls, verify or repair its lines."
    parser.add_argument("command", choices=("stats", "verify", "repair"))
    parser.add_argument("file", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        if not chosen.file.is_file():
            raise DataError(f"{chosen.file}: there is no such journal.")
        if chosen.command == "repair":
            print(f"{_repair(chosen.file)} damaged lines moved to {chosen.file}.damaged")
            return 0
        print(_stats(chosen.file))
        bad = [line.number for line, record in _read(chosen.file) if record is None]
    except CCAIError as error:
        print(error, file=sys.stderr)
        return 2
    if chosen.command == "verify" and bad:
        print(f"damaged lines: {', '.join(map(str, bad[:20]))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
