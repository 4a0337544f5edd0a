"""An engine as a model of lm-evaluation-harness, which is installed where this is imported.

The harness works in a thread of its own; what it asks is answered by the engine in the event loop,
so it is batched, journaled, and may be a fleet.

    model = EngineModel(engine, asyncio.get_running_loop(), report)
    await asyncio.to_thread(simple_evaluate, model=model, tasks=tasks)
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from lm_eval.api.model import LM

from ccai_core.engines import Engine
from ccai_core.errors import EngineError
from ccai_core.evaluation.counted import Report, counted
from ccai_core.types import Call, Sampling, user

T = TypeVar("T")
_MAX_NEW_TOKENS = 256  # the harness's own default


class EngineModel(LM):  # type: ignore[misc]
    """Answers the harness's three kinds of request."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop, report: Report) -> None:
        super().__init__()
        self._engine, self._loop, self._report = engine, loop, report
        self.task = ""
        self.failed: set[str] = set()

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return each continuation's log-probability after its context.

        Whether it would also be the greedy one is not known of a text; no task that we grade by
        asks for it, so it is always false.
        """
        weighed = self._ask(f"{self.task} weighed", [self._after(*r.args) for r in requests])
        return [(nats, False) for nats in weighed]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Return each text's log-probability."""
        texts = [self._engine.text_logprob(r.args[0]) for r in requests]
        return [nats for nats, _ in self._ask(f"{self.task} read", texts)]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return each answer to a request put as a user's turn, up to the first stop word."""
        return self._ask(f"{self.task} answered", [self._written(r) for r in requests])

    def _ask(self, stage: str, asks: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        answers = asyncio.run_coroutine_threadsafe(counted(stage, asks, self._report), self._loop)
        return answers.result()

    async def _after(self, context: str, continuation: str) -> float:
        # As the harness does: blanks at the context's end belong to the continuation.
        blanks = len(context) - len(context.rstrip())
        if blanks:
            context, continuation = context[:-blanks], context[-blanks:] + continuation
        (before, start), (whole, end) = await asyncio.gather(
            self._engine.text_logprob(context), self._engine.text_logprob(context + continuation)
        )
        if end <= start:
            raise EngineError(
                f"{self.task}: an item of more than {start} tokens exceeds the context window of "
                f"{self._engine.model}. Take a model with a larger one, or another task."
            )
        return whole - before

    async def _written(self, request: Any) -> str:
        context, wanted = request.args
        sampling = Sampling(
            max_new_tokens=wanted.get("max_gen_toks", _MAX_NEW_TOKENS),
            temperature=wanted.get("temperature", 0.0) if wanted.get("do_sample") else 0.0,
        )
        answer = await self._engine.generate(Call(messages=(user(context),), sampling=sampling))
        if answer.finish_reason not in {"stop", "length"}:
            self.failed.add(f"{self.task}/{request.task_name}/{request.doc_id}")
        text = answer.text
        until = wanted.get("until", [])
        for stop in [until] if isinstance(until, str) else until:
            text = text.split(stop)[0] if stop else text
        return text
