"""How far an evaluation is: for the progress file at every step, for the log now and then.

teller = Teller(out)
teller.model = "baseline"
teller.report("answers", 3, 60)
"""

from __future__ import annotations

import time
from pathlib import Path

from ccai_core.progress import ProgressFile

PROGRESS_FILE = "progress.json"
_TELL_EVERY_S = 10.0


class Teller:
    """Tells the progress file every step, and the log a line now and then."""

    def __init__(self, out: Path) -> None:
        self._file = ProgressFile(out / PROGRESS_FILE)
        self._next = 0.0
        self.model = "baseline"

    def report(self, stage: str, done: int, total: int) -> None:
        """Say how far a stage is."""
        self._file.write(f"{self.model} {stage}", done, total, model=self.model)
        now = time.monotonic()
        if done == total or now >= self._next:
            self._next = now + _TELL_EVERY_S
            self.say(f"{self.model}: {stage} {done}/{total}")

    def say(self, line: str) -> None:
        """Print a line, flushed, because a job's output is a file that somebody follows."""
        print(line, flush=True)
