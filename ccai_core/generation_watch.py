"""Where a generation is, and how fast it goes: what `progress.json` says of it.

watch = GenerationWatch(progress, recorded)
async with watch.following():
    await make_pairs(recorded, ..., on_progress=watch.report)
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from ccai_core.engine_status import EngineStatus, Reporting
from ccai_core.progress import ProgressFile
from ccai_core.recorded import Recorded

_EVERY_S = 2.0
_WINDOW_S = 120.0


class Pace:
    """What is done a second, over about the last two minutes."""

    def __init__(
        self, window_seconds: float = _WINDOW_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._window_seconds, self._clock = window_seconds, clock
        self._seen: deque[tuple[float, dict[str, float]]] = deque()

    def rates(self, **counts: float) -> dict[str, float]:
        """Take counts that only grow, and return how fast each does; nothing at the first time."""
        now = self._clock()
        while len(self._seen) > 1 and now - self._seen[1][0] >= self._window_seconds:
            self._seen.popleft()
        first, before = self._seen[0] if self._seen else (now, counts)
        # Twice a second are enough to look back on.
        if not self._seen or now - self._seen[-1][0] >= 0.5:
            self._seen.append((now, counts))
        if now - first < 1.0:
            return {}
        return {name: (count - before[name]) / (now - first) for name, count in counts.items()}


class GenerationWatch:
    """Writes progress whenever an episode is through, and now and then while none is."""

    def __init__(self, progress: ProgressFile, recorded: Recorded, wanted: int) -> None:
        self._progress, self._recorded = progress, recorded
        self._at = (0, wanted, 0)
        self._pace = Pace()
        self._status: EngineStatus | None = None

    def report(self, kept: int, wanted: int, calls: int) -> None:
        """Note how far it is; as `make_pairs` calls it."""
        self._at = (kept, wanted, calls)
        if self._progress.is_due("pairs", kept, wanted):
            self._write()

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Keep an eye on the engine within the block."""
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self) -> None:
        engine = self._recorded.engine
        while True:
            if isinstance(engine, Reporting):
                self._status = await engine.status()
            self.report(*self._at)
            await asyncio.sleep(_EVERY_S)

    def _write(self) -> None:
        kept, wanted, calls = self._at
        recorded = self._recorded
        rates = self._pace.rates(
            pairs=kept, calls=recorded.asked, tokens_in=recorded.tokens_in,
            tokens_out=recorded.tokens_out,
        )  # fmt: skip
        said: dict[str, Any] = {f"{name}_per_second": round(n, 2) for name, n in rates.items()}
        if rates.get("pairs"):
            said["seconds_left"] = round((wanted - kept) / rates["pairs"])
        if self._status:
            said["engine"] = self._status.model_dump()
        self._progress.write(
            "pairs", kept, wanted, calls=calls, asked=recorded.asked, replayed=recorded.replayed,
            tokens_in=recorded.tokens_in, tokens_out=recorded.tokens_out, **said,
        )  # fmt: skip
