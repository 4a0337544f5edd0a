"""The log of a training run: append-only JSON lines that a driver can follow.

A line is {"event", "step", "total_steps", "epoch", "time", ...metrics}; events are reference,
start, step, eval, warning and end. A resumed run first removes the lines after the step it goes on
from, so that a curve drawn from the log has no duplicates.

    reader = LogReader(out / "training_log.jsonl")
    while job.running():
        for line in reader.new():
            report(line["event"], line["step"], line.get("loss"))
"""

from __future__ import annotations

import json
import math
import os
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from ccai_core.errors import DataError

Event = Literal["reference", "start", "step", "eval", "warning", "end"]


class TrainingLog:
    """Writes the log. Lines appear at once; the file is flushed to disk with every evaluation."""

    def __init__(self, path: Path, after_step: int | None = None) -> None:
        """Open `path` for appending, keeping only lines up to `after_step` (None: none at all)."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        end = 0 if after_step is None else _end_of(path, after_step)
        # Cut in place, not rewritten: a reader that is following keeps its open position.
        with path.open("ab") as file:
            file.truncate(end)

    def write(
        self, event: Event, step: int, total_steps: int, epoch: float, **metrics: Any
    ) -> None:
        """Append one line. Numbers that JSON cannot hold (inf, nan) become null."""
        line = {
            "event": event,
            "step": step,
            "total_steps": total_steps,
            "epoch": round(epoch, 4),
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **{name: _number(value) for name, value in metrics.items()},
        }
        with self._path.open("ab") as file:
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            if event != "step":
                file.flush()
                os.fsync(file.fileno())

    def entries(self) -> list[dict[str, Any]]:
        """Return what is in the log by now."""
        return read_log(self._path)


class Unwritten(TrainingLog):
    """The log in a process whose lines nobody needs."""

    def __init__(self, path: Path) -> None:
        """Open nothing."""
        self._path = path

    def write(
        self, event: Event, step: int, total_steps: int, epoch: float, **metrics: Any
    ) -> None:
        """Write nothing."""


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _end_of(path: Path, step: int) -> int:
    """Return the offset after the last line that belongs to steps up to `step`."""
    end = 0
    if not path.exists():
        return end
    for raw in path.read_bytes().splitlines(keepends=True):
        entry = _parse(raw)
        if entry is None or entry["step"] > step or entry["event"] == "end":
            break
        end += len(raw)
    return end


def _parse(raw: bytes) -> dict[str, Any] | None:
    """Return a whole line as a dict; None if it is torn or no line of a training log."""
    if not raw.endswith(b"\n"):
        return None
    try:
        entry = json.loads(raw)
    except ValueError:
        return None
    if not isinstance(entry, dict) or "event" not in entry or "step" not in entry:
        return None
    return entry


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return all lines of a log; a torn last line (the writer was killed) is left out.

    Raises:
        DataError: the file cannot be read, or a line before the last is damaged.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    entries = []
    for number, raw in enumerate(lines, start=1):
        entry = _parse(raw)
        if entry is not None:
            entries.append(entry)
        elif raw.endswith(b"\n"):
            raise DataError(f"{path} line {number}: is not a line of a training log.")
    return entries


class LogReader:
    """Reads what is new since the last call, for a driver that polls a log on a shared disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._last = b""
        self._seen: list[int] = []

    def new(self) -> list[dict[str, Any]]:
        """Return the lines written since the last call; none while the file is not there yet.

        When the run was resumed in between, its new start line comes (with the step it went on
        from), and then the steps after it again.
        """
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset - len(self._last))
            if file.read(len(self._last)) != self._last:
                self._rewind(file)
            raw = [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
        for line in raw:
            self._remember(line)
        return [entry for entry in map(_parse, raw) if entry is not None]

    def _remember(self, line: bytes) -> None:
        self._offset += len(line)
        self._last = line
        self._seen.append(zlib.crc32(line))

    def _rewind(self, file: IO[bytes]) -> None:
        """Go back to the first line that is not as it was: a resumed run has cut the log there."""
        seen, self._seen, self._offset, self._last = self._seen, [], 0, b""
        file.seek(0)
        for expected, line in zip(seen, file, strict=False):
            if zlib.crc32(line) != expected:
                break
            self._remember(line)
        file.seek(self._offset)
