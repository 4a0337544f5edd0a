"""Inference servers in simulated time: continuous batching, queueing, prefill, a prefix cache.

The event loop's clock jumps to the next timer instead of waiting, so hours of eight servers take a
minute, and nothing depends on the machine. The client, its queue, limits and circuits are the real
ones: only what they would send over the network goes to a `SimulatedServer`.

    servers = [SimulatedServer(f"s{n}", ServerSpeed()) for n in range(8)]
    run_simulated(main(servers))
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import selectors
import time
from collections import OrderedDict, deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from benchmarks.generation.standin import is_cut, text_of
from infra.client_protocol import CallError, ChatAnswer, ChatRequest
from infra.endpoint import Endpoint

T = TypeVar("T")

_NETWORK_S = 0.002  # there, and back
_CHARACTERS = 4.0  # a token


class _Clock(selectors.DefaultSelector):
    """A selector that lets time pass at once."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("the simulation waits for nothing: it is stuck")
        self.now += max(0.0, timeout)
        return super().select(0)


def run_simulated(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop whose clock is simulated."""
    clock, real = _Clock(), time.monotonic
    time.monotonic = lambda: clock.now  # type: ignore[assignment]
    try:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(clock)) as runner:
            return runner.run(main)
    finally:
        time.monotonic = real


@dataclass(frozen=True)
class ServerSpeed:
    """About one H100 with an 8B model in bf16: 128 sequences give some 7,800 tokens a second."""

    slots: int = 128
    step_s: float = 0.0100
    """A decoding step of one sequence, and ..."""
    sequence_s: float = 0.00005
    """... so much more for each further one."""
    prefill_s: float = 0.000025
    """Reading one token of a prompt that is not in the cache."""
    chunk: int = 2048
    """Tokens of prompts read in one step."""
    cache_tokens: int = 300_000


@dataclass(eq=False)
class _Work:
    prefixes: list[tuple[bytes, int]]
    """The conversation after each turn: its hash, and its tokens."""
    new_tokens: int
    left: int
    """Tokens of the prompt still to be read."""
    done: asyncio.Future[None]
    after: bytes = b""
    ends_at: int = 0


@dataclass
class Usage:
    """What a server did, integrated over time."""

    slot_seconds: float = 0.0
    generated: int = 0
    read: int = 0
    cached: int = 0
    answered: int = 0
    series: list[tuple[float, float]] = field(default_factory=list)
    """(time, slot seconds until then)"""


class SimulatedServer:
    """One server: calls wait for a slot, are read in chunks, and decode together."""

    def __init__(self, name: str, speed: ServerSpeed | None = None) -> None:
        self.name, self.speed, self.usage = name, speed or ServerSpeed(), Usage()
        self.is_dead = False
        self._waiting: deque[_Work] = deque()
        self._reading: deque[_Work] = deque()
        self._decoding: list[tuple[int, int, _Work]] = []
        self._cache: OrderedDict[bytes, int] = OrderedDict()
        self._cached_tokens = 0
        self._steps = self._number = 0
        self._arrived = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def endpoint(self) -> Endpoint:
        """The server as the client sees it."""
        return Endpoint(
            instance=self.name, url=f"http://{self.name}", model="stand-in", engine="vllm",
            max_parallel=self.speed.slots, host=self.name, pid=1, job_id="1", started="",
            key_id="",
        )  # fmt: skip

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        """Answer as the client's connection does."""
        if self.is_dead:
            await asyncio.sleep(_NETWORK_S)
            raise CallError("unavailable", "the connection was refused")
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        await asyncio.sleep(_NETWORK_S)
        prefixes, hashed, tokens = [], hashlib.blake2b(digest_size=16), 0
        for message in request.messages:
            hashed.update(message.content.encode())
            tokens += int(len(message.content) / _CHARACTERS) + 4
            prefixes.append((hashed.digest(), tokens))
        # Another seed, another text: passes over the same prompts differ.
        digest = hashlib.sha256(prefixes[-1][0] + str(request.seed).encode()).digest()
        text = text_of(digest)
        # As real answers do, they differ in length by a factor of five.
        length = 40 + int(160 * (digest[22] / 255) ** 1.5)
        hashed.update(text.encode())
        work = _Work(prefixes, length, 0, asyncio.get_running_loop().create_future())
        work.after = hashed.digest()
        self._waiting.append(work)
        self._arrived.set()
        await work.done
        await asyncio.sleep(_NETWORK_S)
        return ChatAnswer(
            text=text,
            finish_reason="length" if is_cut(digest) else "stop",
            prompt_tokens=tokens,
            completion_tokens=length,
            endpoint=self.name,
        )

    async def aclose(self) -> None:
        """Close nothing: there is no connection."""

    def die(self) -> None:
        """Cut every call, and refuse all from now on."""
        self.is_dead = True
        if self._running:
            self._running.cancel()
        for work in [*self._waiting, *self._reading, *(each for *_, each in self._decoding)]:
            if not work.done.done():
                work.done.set_exception(CallError("unavailable", "the connection was reset"))

    async def _run(self) -> None:
        speed, usage = self.speed, self.usage
        while True:
            if not (self._waiting or self._reading or self._decoding):
                self._arrived.clear()
                await self._arrived.wait()
            self._admit()
            read = self._read_chunk()
            taken = len(self._reading) + len(self._decoding)
            seconds = speed.step_s + speed.sequence_s * len(self._decoding)
            seconds += speed.prefill_s * read
            await asyncio.sleep(seconds)
            usage.slot_seconds += seconds * taken
            usage.generated += len(self._decoding)
            usage.read += read
            usage.series.append((time.monotonic(), usage.slot_seconds))
            self._steps += 1
            self._finish()

    def _admit(self) -> None:
        while self._waiting and len(self._reading) + len(self._decoding) < self.speed.slots:
            work = self._waiting.popleft()
            if work.done.done():
                continue  # its caller has gone
            known = 0
            for prefix, tokens in work.prefixes:
                if prefix in self._cache:
                    self._cache.move_to_end(prefix)
                    known = tokens
            work.left = work.prefixes[-1][1] - known
            self.usage.cached += known
            self._reading.append(work)

    def _read_chunk(self) -> int:
        room = self.speed.chunk
        while self._reading and room:
            work = self._reading[0]
            part = min(room, work.left)
            room, work.left = room - part, work.left - part
            if work.left:
                break
            self._reading.popleft()
            before = 0
            for prefix, tokens in work.prefixes:
                self._keep(prefix, tokens - before)
                before = tokens
            self._number += 1
            heapq.heappush(self._decoding, (self._steps + work.new_tokens, self._number, work))
        return self.speed.chunk - room

    def _finish(self) -> None:
        while self._decoding and self._decoding[0][0] <= self._steps:
            *_, work = heapq.heappop(self._decoding)
            self._keep(work.after, work.new_tokens)
            self.usage.answered += 1
            if not work.done.done():
                work.done.set_result(None)

    def _keep(self, prefix: bytes, tokens: int) -> None:
        if prefix in self._cache:
            self._cache.move_to_end(prefix)
            return
        self._cache[prefix] = tokens
        self._cached_tokens += tokens
        while self._cached_tokens > self.speed.cache_tokens:
            _, gone = self._cache.popitem(last=False)
            self._cached_tokens -= gone
