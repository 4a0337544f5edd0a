"""Gathers concurrent questions into batches, the same batches whenever the same is unanswered.

A batch is formed only once no coroutine has anything more to ask, and then from the questions of
lowest rank. What shares a batch is thus a function of which questions are unanswered, not of
timing; a run that was killed and replays what it knows from a journal forms the batches that it
would have formed.

    batcher = Batcher(compute, batch_size=32)      # compute: list[Request] -> list of answers
    batcher.start()
    answer = await batcher.ask(group=("generate",), rank=(3, "key"), payload=call)
    await batcher.stop()
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ccai_core.errors import EngineError

log = logging.getLogger(__name__)

# Turns of the event loop in which nobody asks or is answered, after which everybody counts as
# waiting. From an answer to the next question it takes about ten: journal, gather, next episode.
_SETTLED_TURNS = 32


class OutOfMemoryError(Exception):
    """A batch did not fit into memory; a smaller one may."""


@dataclass(eq=False)
class Request:
    """One waiting question: equal `group`s may share a batch; lower `rank` goes first."""

    group: tuple[Any, ...]
    rank: tuple[Any, ...]
    payload: Any
    answer: asyncio.Future[Any] = field(repr=False)

    def fail(self, error: Exception) -> None:
        """Give the caller an error, if it still waits."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Batcher:
    """Runs `compute` on one batch at a time, in a thread.

    Args:
        compute: answers a batch in order; raises OutOfMemoryError where a smaller one may fit, and
            ends early where `stopping` is set.
        batch_size: most questions in a batch; halved for good when memory runs out.
        gather_seconds: form a batch only once it is full or nobody has asked for this long; for
            questions that arrive over a network, which nothing in this process announces.
    """

    def __init__(
        self,
        compute: Callable[[list[Request]], Sequence[Any]],
        batch_size: int,
        gather_seconds: float = 0.0,
    ) -> None:
        self._compute, self.batch_size = compute, batch_size
        self._gather_seconds = gather_seconds
        self.running = 0  # questions that are being computed
        self.batches = 0  # computed so far
        self._waiting: list[Request] = []
        self._arrived = asyncio.Event()
        self._moves = 0
        self._pump: asyncio.Task[None] | None = None
        self.stopping = threading.Event()

    def start(self) -> None:
        """Begin to answer."""
        self.stopping.clear()
        self._pump = asyncio.create_task(self._serve(), name="batcher")

    async def stop(self) -> None:
        """End the running batch and give everybody who waits an EngineError."""
        self.stopping.set()
        self._arrived.set()
        if self._pump:
            await asyncio.gather(self._pump, return_exceptions=True)

    def stir(self) -> None:
        """Say that a caller has been answered elsewhere (from a journal) and may ask more."""
        self._moves += 1

    async def ask(self, group: tuple[Any, ...], rank: tuple[Any, ...], payload: Any) -> Any:
        """Wait for the answer to one question.

        Raises:
            EngineError: the batcher is not running, or was stopped meanwhile.
        """
        if self.stopping.is_set() or self._pump is None or self._pump.done():
            raise EngineError("The local engine is not running; use it inside `async with`.")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(Request(group, rank, payload, answer))
        self.stir()
        self._arrived.set()
        return await answer

    async def _serve(self) -> None:
        batch: list[Request] = []
        try:
            while True:
                await self._arrived.wait()
                await self._gather()
                await self._settle()
                if self.stopping.is_set():
                    return
                batch = self._next_batch()
                if batch:
                    await self._answer(batch)
                else:
                    self._arrived.clear()
        finally:
            # However serving ends, nobody is left waiting.
            for request in [*batch, *self._waiting]:
                request.fail(EngineError("The local engine was stopped."))
            self._waiting = []

    async def _gather(self) -> None:
        seen = -1
        while self._moves != seen and not self.stopping.is_set():
            if not self._gather_seconds or not 0 < len(self._waiting) < self.batch_size:
                return
            seen = self._moves
            await asyncio.sleep(self._gather_seconds)

    async def _settle(self) -> None:
        seen, quiet = self._moves, 0
        while quiet < _SETTLED_TURNS and not self.stopping.is_set():
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._moves == seen else 0
            seen = self._moves

    def _next_batch(self) -> list[Request]:
        # A caller that was cancelled has left a request that nobody waits for.
        self._waiting = [r for r in self._waiting if not r.answer.done()]
        if not self._waiting:
            return []
        first = min(self._waiting, key=lambda r: (r.rank, r.group))
        alike = sorted((r for r in self._waiting if r.group == first.group), key=lambda r: r.rank)
        batch = alike[: self.batch_size]
        taken = {id(r) for r in batch}
        self._waiting = [r for r in self._waiting if id(r) not in taken]
        return batch

    async def _answer(self, batch: list[Request]) -> None:
        self.running = len(batch)
        self.batches += 1
        try:
            answers = await asyncio.to_thread(self._compute, batch)
        except OutOfMemoryError as error:
            self._shrink(batch, error)
            return
        except Exception as error:  # noqa: BLE001 - every waiting caller gets the real error
            for request in batch:
                request.fail(error)
            return
        finally:
            self.running = 0
        for request, answer in zip(batch, answers, strict=True):
            if not request.answer.done():
                request.answer.set_result(answer)

    def _shrink(self, batch: list[Request], error: Exception) -> None:
        if len(batch) == 1:
            batch[0].fail(
                EngineError(
                    f"Not enough memory for a single call ({error}). Take a smaller model, a lower "
                    "precision, or fewer tokens."
                )
            )
            return
        # Back in line: what the next, smaller batch holds is decided as for any other.
        self._waiting += batch
        self.batch_size = len(batch) // 2
        log.warning("Out of memory at %d sequences; going on with %d", len(batch), self.batch_size)
