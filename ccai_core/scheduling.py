"""Many episodes at once: depth first, in order, with bounded memory, however many there are.

An episode that is begun is finished before another is begun: new ones are opened only while the
engine has room that nobody open asks for. So the servers are always full, few episodes are half
done, and their prefixes are still in the caches. Episodes come out in the order given, and none is
opened further than `ahead` before the first that is not through: that bounds memory, and what is
asked may depend on what came out so long before.

    async for episode in run_episodes(engine, work, principles, GenerationConfig()):
        ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from typing import Any

from ccai_core.constitution import FewShot, Principle
from ccai_core.episodes import Episode, GenerationConfig, run_episode
from ccai_core.types import Call, Completion, Generate, Parallel, Prompt

AHEAD = 4096
"""Most episodes between the one that is waited for and the last one that was opened."""

# Turns of the loop until an episode's first call has reached the engine, and takes of its room.
_TURNS = 3

Asked = Sequence[Principle] | Callable[[int], Sequence[Principle]]
"""The principles of every episode, or a function of an episode's place in the order."""


async def run_episodes(
    engine: Generate,
    work: Iterable[tuple[Prompt, int]],
    principles: Asked,
    config: GenerationConfig,
    *,
    shots: Sequence[FewShot] = (),
    ahead: int = AHEAD,
    on_episode: Callable[[Episode], None] | None = None,
) -> AsyncGenerator[Episode]:
    """Run (prompt, sample) pairs and yield their episodes in the order given.

    `on_episode` is called as each one finishes, in any order. An error in any episode cancels the
    others and is raised at once. When the consumer leaves, what is open is cancelled.
    """

    async def run(index: int, prompt: Prompt, sample: int) -> Episode:
        asked = principles(index) if callable(principles) else principles
        episode = await run_episode(load, prompt, asked, config, sample=sample, shots=shots)
        if on_episode:
            on_episode(episode)
        return episode

    load = _Load(engine)
    line = _Line(load, run, ahead, slots=max(4, config.batch_size // 2))
    opening = asyncio.create_task(line.open_all(work))
    opening.add_done_callback(lambda _: line.tasks.put_nowait(None))
    try:
        while task := await line.tasks.get():
            if not task.done():
                await asyncio.wait({task, line.failed}, return_when=asyncio.FIRST_COMPLETED)
            yield (line.failed if line.failed.done() else task).result()
            line.passed()
        opening.result()
    finally:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        await line.cancel()


class _Load:
    """An engine that tells when a call has ended, and whether it has room for more."""

    def __init__(self, engine: Generate) -> None:
        self._engine = engine
        self._parallel = engine if isinstance(engine, Parallel) else None
        self.changed = asyncio.Event()

    @property
    def model(self) -> str:
        return self._engine.model

    @property
    def room(self) -> int | None:
        return self._parallel.room if self._parallel else None

    async def generate(self, call: Call) -> Completion:
        try:
            return await self._engine.generate(call)
        finally:
            self.changed.set()


class _Line:
    """Episodes that are open, or through and not yet taken, in order."""

    def __init__(
        self,
        load: _Load,
        run: Callable[[int, Prompt, int], Coroutine[Any, Any, Episode]],
        ahead: int,
        slots: int,
    ) -> None:
        self._load, self._run, self._ahead, self._slots = load, run, ahead, slots
        self._open: set[asyncio.Task[Episode]] = set()
        self._in_line = 0
        self.tasks: asyncio.Queue[asyncio.Task[Episode] | None] = asyncio.Queue()
        self.failed: asyncio.Future[Episode] = asyncio.get_running_loop().create_future()

    async def open_all(self, work: Iterable[tuple[Prompt, int]]) -> None:
        """Open one after the other, each as soon as there is room."""
        items = iter(work)
        index = 0
        while True:
            while not self._has_room():
                self._load.changed.clear()
                await self._load.changed.wait()
                # What an answer leads to is asked in the same turn, and goes first.
                await asyncio.sleep(0)
            item = next(items, None)
            if item is None:
                return
            task = asyncio.create_task(self._run(index, *item))
            index += 1
            self._in_line += 1
            self._open.add(task)
            task.add_done_callback(self._through)
            self.tasks.put_nowait(task)
            for _ in range(_TURNS if self._load.room is not None else 0):
                await asyncio.sleep(0)

    def passed(self) -> None:
        """Note that the first in line was taken."""
        self._in_line -= 1
        self._load.changed.set()

    async def cancel(self) -> None:
        """Give up what is open."""
        left = list(self._open)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if not self.failed.cancel():
            self.failed.exception()  # seen, also where the consumer left before it could be raised

    def _has_room(self) -> bool:
        if self._in_line >= self._ahead:
            return False
        room = self._load.room
        # An engine in this process takes what it wants from those open: enough for full batches,
        # and few left half done.
        return room > 0 if room is not None else len(self._open) < self._slots

    def _through(self, task: asyncio.Task[Episode]) -> None:
        self._open.discard(task)
        self._load.changed.set()
        if not task.cancelled() and (error := task.exception()) and not self.failed.done():
            self.failed.set_exception(error)
