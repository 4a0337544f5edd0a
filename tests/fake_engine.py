"""A fast engine for tests: the real batching code in front of texts that are hashes.

What it writes depends on the whole batch, as a sampled batch of a real model does, so a run that
forms other batches writes other texts.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from ccai_core.batching import Batcher, Request
from ccai_core.types import Call, Completion, FinishReason, fingerprint

MODEL = "fake@1"
Outcome = Callable[[str], FinishReason]


def mostly_stops(digest: str) -> FinishReason:
    return "length" if digest[0] == "0" else "stop"


class BatchedFake:
    """Generate through the real Batcher; `batches` keeps the call keys of every batch."""

    def __init__(self, batch_size: int = 16, outcome: Outcome = mostly_stops) -> None:
        self._batcher = Batcher(self._compute, batch_size)
        self._outcome = outcome
        self.batches: list[list[str]] = []

    @property
    def model(self) -> str:
        return MODEL

    @property
    def keys(self) -> list[str]:
        return [key for batch in self.batches for key in batch]

    def stir(self) -> None:
        self._batcher.stir()

    async def __aenter__(self) -> BatchedFake:
        self._batcher.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._batcher.stop()

    async def generate(self, call: Call) -> Completion:
        key = call.key(MODEL)
        answer: Completion = await self._batcher.ask(("g",), (-len(call.messages), key), key)
        return answer

    def _compute(self, batch: list[Request]) -> list[Completion]:
        keys = [request.payload for request in batch]
        self.batches.append(keys)
        identity = fingerprint(keys)
        return [self._completion(fingerprint([identity, key]), identity, len(keys)) for key in keys]

    def _completion(self, digest: str, batch: str, size: int) -> Completion:
        reason = self._outcome(digest)
        return Completion(
            text="" if reason == "error" else f"text {digest}",
            finish_reason=reason, completion_tokens=5, model=MODEL, batch=batch, batch_size=size,
        )  # fmt: skip
