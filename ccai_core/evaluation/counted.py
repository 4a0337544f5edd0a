"""Many questions at once, with a count of how many are answered.

completions = await counted("answers", (engine.generate(call) for call in calls), report)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
Report = Callable[[str, int, int], None]
_REPORT_EVERY_S = 0.5


def silent(stage: str, done: int, total: int) -> None:
    """Report progress to nobody."""


async def counted(stage: str, asks: Iterable[Awaitable[T]], report: Report = silent) -> list[T]:
    """Ask everything at once (the engine batches) and report how much is through."""
    waiting = list(asks)
    done = 0

    async def one(ask: Awaitable[T]) -> T:
        nonlocal done
        result = await ask
        done += 1
        return result

    async def tell() -> None:
        # By the clock, not by the answer: answers arrive a whole batch at a time.
        while True:
            report(stage, done, len(waiting))
            await asyncio.sleep(_REPORT_EVERY_S)

    telling = asyncio.create_task(tell())
    try:
        results = await asyncio.gather(*map(one, waiting))
    finally:
        telling.cancel()
    report(stage, done, len(waiting))
    return list(results)
