"""An engine behind a journal: answers what is recorded, asks and records what is not.

Texts are keyed as DESIGN rule 7 says: model, revision, messages, sampling, seed. A text is a draw
from the model wherever it was computed, so device, precision and batch are no part of its key and a
journal moves from a laptop to a cluster. A score is a measurement: fp32 and bf16 weights measure
different values, so the weights' dtype is part of a score's key.

    engine = Recorded(engine, journal)
    completion = await engine.generate(call)
    log_probabilities = await engine.choose(messages, ("Yes", "No"))
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ccai_core.errors import EngineError
from ccai_core.journal_lines import Record, Scores
from ccai_core.types import (
    Call,
    Completion,
    Gathering,
    Generate,
    Message,
    Parallel,
    Score,
    fingerprint,
)

if TYPE_CHECKING:
    from ccai_core.journal import Journal

R = TypeVar("R", Completion, Scores)
T = TypeVar("T")


class _Waiting(Generic[T]):
    """Those who wait for one result: when one gives up, the others do not notice.

    As asyncio.shield for each of them, at a third of its cost, which every call has twice.
    """

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[T]] = []

    async def join(self) -> T:
        """Wait for the result."""
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return await waiter

    def tell(self, done: asyncio.Future[T]) -> None:
        """Hand the result to all who wait now."""
        error = None if done.cancelled() else done.exception()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if waiter.done():
                continue
            if done.cancelled():
                waiter.cancel()
            elif error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(done.result())


class _InFlight:
    """A question being asked, and how many callers wait for its answer."""

    def __init__(self, asking: Coroutine[Any, Any, Record]) -> None:
        self.waiting: _Waiting[Record] = _Waiting()
        self.asking = asyncio.get_running_loop().create_task(asking)
        self.asking.add_done_callback(self.waiting.tell)
        self.callers = 0


class Recorded:
    """`Generate`, `Choose` and `Score` that answer from a journal and record what they have to ask.

    Identical questions in flight are asked once. Failures are not recorded: they are tried again
    by the next run. `replayed` and `asked` count answers by where they came from.
    """

    def __init__(self, engine: Generate, journal: Journal) -> None:
        self._engine, self._journal = engine, journal
        self._gathering = engine if isinstance(engine, Gathering) else None
        self._parallel = engine if isinstance(engine, Parallel) else None
        self._in_flight: dict[str, _InFlight] = {}
        self._coming: set[str] = set()
        self._unwritten: list[tuple[str, Record]] = []
        self._written: _Waiting[None] | None = None
        self._group: Future[None] | None = None
        self.replayed = self.asked = 0
        self.tokens_in = self.tokens_out = 0
        """Of the calls that were asked."""

    @property
    def engine(self) -> Generate:
        """The engine behind."""
        return self._engine

    @property
    def model(self) -> str:
        """Model identity of the engine behind."""
        return self._engine.model

    @property
    def room(self) -> int | None:
        """Calls of new episodes that the engine behind has room for; None: it does not say."""
        room = self._parallel.room if self._parallel else None
        # Those on the way to the engine are not counted there yet.
        return None if room is None else room - len(self._coming)

    @property
    def dtype(self) -> str:
        """Weights' dtype of the engine behind."""
        return self._scorer.dtype

    async def generate(self, call: Call) -> Completion:
        """Answer from the journal, from a call already in flight, or from the engine."""
        return await self._answer(
            call.key(self.model), Completion, lambda: self._engine.generate(call)
        )

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        """Return log p(option | conversation), summed over each option's tokens (nats)."""
        engine = self._scorer

        async def ask() -> Scores:
            values = await engine.choose(messages, options)
            return Scores(values=tuple(values), model=self._measured_by)

        turns = [(m.role, m.content) for m in messages]
        key = fingerprint(["choose", self._measured_by, turns, options], 32)
        return list((await self._answer(key, Scores, ask)).values)

    async def text_logprob(self, text: str) -> tuple[float, int]:
        """Return the summed log-probability (nats) of a plain text, and its predicted tokens."""
        engine = self._scorer

        async def ask() -> Scores:
            value, tokens = await engine.text_logprob(text)
            return Scores(values=(value,), tokens=tokens, model=self._measured_by)

        key = fingerprint(["text", self._measured_by, text], 32)
        scores = await self._answer(key, Scores, ask)
        return scores.values[0], scores.tokens

    @property
    def _scorer(self) -> Score:
        if not isinstance(self._engine, Score):
            raise EngineError(
                f"The engine of {self.model} gives texts only, no log-probabilities. Use a local "
                "engine, or a judge that writes its verdict."
            )
        return self._engine

    @property
    def _measured_by(self) -> str:
        return f"{self.model}/{self._scorer.dtype}"

    async def _answer(self, key: str, kind: type[R], ask: Callable[[], Awaitable[R]]) -> R:
        known = self._journal.get(key)
        if isinstance(known, kind):
            self.replayed += 1
            # Whoever was answered may ask on: an engine must not take its batch for complete yet.
            if self._gathering:
                self._gathering.stir()
            return known
        question = self._in_flight.get(key)
        if question is None or question.asking.done():
            question = _InFlight(self._ask(key, ask))
            self._in_flight[key] = question
            self._coming.add(key)
        question.callers += 1
        try:
            answer = await question.waiting.join()
        finally:
            question.callers -= 1
            if not question.callers:
                # The last one to give up stops the asking.
                question.asking.cancel()
                if self._in_flight.get(key) is question:
                    del self._in_flight[key]
                    self._coming.discard(key)
        assert isinstance(answer, kind)  # noqa: S101 - the kind is part of what the key hashes
        return answer

    async def _ask(self, key: str, ask: Callable[[], Awaitable[Record]]) -> Record:
        self._coming.discard(key)
        record = await ask()
        self.asked += 1
        if isinstance(record, Completion):
            self.tokens_in += record.prompt_tokens
            self.tokens_out += record.completion_tokens
        if isinstance(record, Scores) or record.finish_reason != "error":
            await self._record(key, record)
        return record

    async def _record(self, key: str, record: Record) -> None:
        """Return once it is on the disk: what is built on an answer must not outlive it."""
        if self._gathering:
            await self._record_batch(key, record)
            return
        group = self._journal.put(key, record)
        if group is not self._group or self._written is None:
            # One wake-up of the loop for all that are written together.
            self._group, self._written = group, _Waiting()
            asyncio.wrap_future(group).add_done_callback(self._written.tell)
        await self._written.join()

    async def _record_batch(self, key: str, record: Record) -> None:
        # All that finish in one turn of the loop (a batch) share one write and one fsync. At once:
        # an engine that gathers would take a caller that waits for a disk for one that has no more
        # to ask.
        self._unwritten.append((key, record))
        if self._written is None:
            self._written = _Waiting()
            asyncio.get_running_loop().call_soon(self._flush, self._written)
        await self._written.join()

    def _flush(self, waiting: _Waiting[None]) -> None:
        records, self._unwritten, self._written = self._unwritten, [], None
        written = asyncio.get_running_loop().create_future()
        try:
            self._journal.append(_as_batch(records))
        except Exception as error:  # noqa: BLE001 - every caller gets the real error
            written.set_exception(error)
        else:
            written.set_result(None)
        waiting.tell(written)


def _as_batch(records: list[tuple[str, Record]]) -> list[tuple[str, Record]]:
    """Mark scores that are written together, so that a torn write forgets all of them."""
    keys = [key for key, record in records if isinstance(record, Scores)]
    mark = {"batch": fingerprint(keys), "batch_size": max(1, len(keys))}
    return [(k, r.model_copy(update=mark) if isinstance(r, Scores) else r) for k, r in records]
