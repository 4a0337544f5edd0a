"""The progress of a job as a small file that whoever waits for it can read at any time.

A job may run on another machine; what it shares with its driver is a folder.

    progress = ProgressFile(out / "progress.json")
    progress.write("answers", 12, 48, model="baseline")
    read_progress(out / "progress.json")        # {'stage': 'answers', 'done': 12, 'total': 48, ...}
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ccai_core.errors import ArtifactError

# Often enough to watch, seldom enough for a network file system.
_AT_MOST_EVERY_S = 0.4


class ProgressFile:
    """Writes where a job is; a reader never sees half a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0.0
        self._stage: str | None = None

    def is_due(self, stage: str, done: int, total: int) -> bool:
        """Whether a word would be written now: the last one may be fresh, and the stage go on."""
        return stage != self._stage or done >= total or time.monotonic() >= self._next

    def write(self, stage: str, done: int, total: int, **more: Any) -> None:
        """Say how far `stage` is; skipped when the last word is fresh and the stage goes on.

        A stage's first and last words (done == total) are always written.

        Raises:
            ArtifactError: the folder cannot be written.
        """
        if not self.is_due(stage, done, total):
            return
        self._stage, self._next = stage, time.monotonic() + _AT_MOST_EVERY_S
        word = {"stage": stage, "done": done, "total": total, "time": time.time(), **more}
        # No fsync: after a power cut the job writes a new one.
        unfinished = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(word, ensure_ascii=False), encoding="utf-8")
            unfinished.replace(self._path)
        except OSError as error:
            raise ArtifactError(f"{self._path}: cannot be written ({error.strerror}).") from None


def read_progress(path: Path) -> dict[str, Any] | None:
    """Return the last word of a job, or None when it has said nothing readable yet."""
    try:
        word = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return word if isinstance(word, dict) else None
