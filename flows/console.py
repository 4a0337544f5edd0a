"""What a person at a terminal sees while a flow runs: a bar a step, with rate and time left.

with Console().live() as console:
    ...                                  # flows find it with `current_show()`
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich import console as rich_console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tasks.site import Show, show_nothing

_LINE_EVERY_S = 10.0

_show: ContextVar[Show] = ContextVar("show", default=show_nothing)


def current_show() -> Show:
    """Return who is watching: the console of this process, or nobody (a worker)."""
    return _show.get()


class Console:
    """Bars on a terminal; a line every few seconds where the output goes to a file."""

    def __init__(self) -> None:
        self.out = rich_console.Console(soft_wrap=True)
        self._bars = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self.out,
        )
        self._steps: dict[str, _Step] = {}

    def error(self, text: str) -> None:
        """Say what went wrong, on standard error."""
        rich_console.Console(stderr=True, soft_wrap=True).print(
            text, style="red", markup=False, highlight=False
        )

    @contextmanager
    def live(self) -> Iterator[Console]:
        """Show progress until the block ends."""
        token = _show.set(self.show)
        try:
            if self.out.is_terminal:
                with self._bars:
                    yield self
            else:
                yield self
        finally:
            _show.reset(token)

    def show(self, step: str, done: int, total: int, detail: str, through: bool) -> None:
        """Draw one step's progress."""
        known = self._steps.get(step)
        if known is None:
            bar = self._bars.add_task(step, rate="", detail="")
            known = self._steps[step] = _Step(bar, done, total)
        known.move(done, total)
        rate = "" if through else known.rate()
        self._bars.update(known.bar, completed=done, total=total, rate=rate, detail=detail)
        if not self.out.is_terminal and known.wants_a_line(through):
            left = "" if through else known.left()
            parts = [f"{step}: {done}/{total}", rate, left, detail]
            self.out.print(", ".join(part for part in parts if part), markup=False, highlight=False)


class _Step:
    """How fast a step moves, counted from where it was first seen: a resumed one is not at zero."""

    def __init__(self, bar: TaskID, done: int, total: int) -> None:
        self.bar = bar
        self._next_line = 0.0
        self._through = False
        self._begin(done, total)

    def _begin(self, done: int, total: int) -> None:
        self._began = time.monotonic()
        self._first = self._done = done
        self._total = total

    def move(self, done: int, total: int) -> None:
        """Note where it is; the next stage of a step, or a new attempt, counts from anew."""
        if total != self._total or done < self._done:
            self._begin(done, total)
        self._done = done

    def rate(self) -> str:
        """Return what is done a second, or how long each takes; nothing while that is unknown."""
        seconds = time.monotonic() - self._began
        speed = (self._done - self._first) / seconds if seconds > 1 else 0.0
        if speed <= 0:
            return ""
        return f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"

    def left(self) -> str:
        """Return the time left at that rate."""
        if not self._first < self._done < self._total:
            return ""
        seconds = time.monotonic() - self._began
        left = seconds / (self._done - self._first) * (self._total - self._done)
        return f"{int(left // 60)}:{int(left % 60):02d} left"

    def wants_a_line(self, through: bool) -> bool:
        """Whether to print now: the first time, every few seconds, and once when it is through."""
        now = time.monotonic()
        if self._through or (now < self._next_line and not through):
            return False
        self._next_line, self._through = now + _LINE_EVERY_S, through
        return True
