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

    async def run(asking: _Asking, index: int, prompt: Prompt, sample: int) -> Episode:
        try:
            asked = principles(index) if callable(principles) else principles
            asking.critiques = len(asked)
            episode = await run_episode(asking, prompt, asked, config, sample=sample, shots=shots)
        finally:
            asking.ends()
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
    """An engine, whether it has room for more, and when that may have changed."""

    def __init__(self, engine: Generate) -> None:
        self.engine = engine
        self._parallel = engine if isinstance(engine, Parallel) else None
        self.changed = asyncio.Event()
        self.coming = 0
        """Calls that are sure to be made, and were not yet."""

    @property
    def room(self) -> int | None:
        """Episodes that may be opened now; None: the engine does not say."""
        room = self._parallel.room if self._parallel else None
        return None if room is None else room - self.coming


class _Asking:
    """The engine as one episode sees it; knows which calls the episode is about to make.

    They are made some turns of the loop later, in tasks of their own, and go before new episodes:
    so each has its place from the moment when it is sure to come.
    """

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._has_response = False
        self._coming = 0
        self._expect(1)
        self.critiques = 0
        """How many calls an answer to the first leads to."""

    @property
    def model(self) -> str:
        return self._load.engine.model

    async def generate(self, call: Call) -> Completion:
        if self._coming:
            # The engine counts it from here on (see Parallel).
            self._expect(-1)
        try:
            answer = await self._load.engine.generate(call)
            if not self._has_response:
                self._has_response = True
                self._expect(self.critiques if answer.usable else 0)
            return answer
        finally:
            self._load.changed.set()

    def ends(self) -> None:
        """Give up what was expected: no further call is made."""
        self._expect(-self._coming)
        self._load.changed.set()

    def _expect(self, calls: int) -> None:
        self._coming += calls
        self._load.coming += calls


class _Line:
    """Episodes that are open, or through and not yet taken, in order."""

    def __init__(
        self,
        load: _Load,
        run: Callable[[_Asking, int, Prompt, int], Coroutine[Any, Any, Episode]],
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
            item = next(items, None)
            if item is None:
                return
            task = asyncio.create_task(self._run(_Asking(self._load), index, *item))
            index += 1
            self._in_line += 1
            self._open.add(task)
            task.add_done_callback(self._through)
            self.tasks.put_nowait(task)

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
