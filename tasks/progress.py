"""The progress of one long step: to the terminal at every look, to the Prefect UI now and then.

progress = Progress(site, "training", unit="steps")
progress.update(120, 375, "loss 0.61")
"""

from __future__ import annotations

import time

from tasks.shown import Bar
from tasks.site import Site

_UI_EVERY_S = 5.0


class Progress:
    """Fans one step's progress out; a server that is away is no reason to stop."""

    def __init__(self, site: Site, step: str, unit: str) -> None:
        self._site, self._step, self._unit = site, step, unit
        self._bar = Bar(step.replace(" ", "-"))
        self._next = 0.0
        self._last: tuple[int, int, str] | None = None
        self._total = 1

    def update(self, done: int, total: int, *details: str, left: str = "") -> None:
        """Say how far the step is, and what else is worth knowing.

        `left` is how long it will still take, for the UI: a terminal reckons that by itself.
        """
        self._total = total
        detail = ", ".join(filter(None, details))
        self._site.show(self._step, done, total, detail, False)
        if (done, total, detail) == self._last or time.monotonic() < self._next:
            return
        self._last = (done, total, detail)
        self._next = time.monotonic() + _UI_EVERY_S
        said = ", ".join(filter(None, (detail, left)))
        self._to_prefect(100.0 * done / max(1, total), f"{done}/{total} {self._unit}. {said}")

    def finish(self, detail: str = "") -> None:
        """Say that the step is through."""
        self._site.show(self._step, self._total, self._total, detail, True)
        self._to_prefect(100.0, detail or "done")

    def _to_prefect(self, percent: float, text: str) -> None:
        self._bar.show(min(100.0, max(0.0, percent)), text)
