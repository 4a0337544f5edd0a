"""A model in this process as an engine: batches whatever calls are waiting, deterministically.

Calls that are submitted concurrently are gathered until no coroutine has anything more to ask, then
the deepest conversations go first, as one batch. Which calls share a batch is thus a function of
which calls are unanswered, not of timing, and sampling is seeded by the batch's own content: a run
that was killed and continued from its journal makes the same text as one that was not.

    async with LocalEngine(ref, batch_size=32) as engine:
        answers = await asyncio.gather(*(engine.generate(call) for call in calls))
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from ccai_core.control_tokens import neutralise
from ccai_core.errors import EngineError
from ccai_core.models import Device, ModelRef, Precision, load_model
from ccai_core.types import Call, Completion, Message, Sampling, fingerprint

log = logging.getLogger(__name__)

T = TypeVar("T")
# Loop turns without a new call after which every coroutine counts as waiting for an answer.
_SETTLED_TURNS = 16
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass
class _Request(Generic[T]):
    """One waiting question: `group` may share a batch; lower `rank` goes first."""

    group: tuple[Any, ...]
    rank: tuple[Any, ...]
    payload: Any
    answer: asyncio.Future[T] = field(repr=False)


class LocalEngine:
    """Generate, Choose and text log-probability on one model in this process.

    Args:
        ref: the resolved model.
        device: where to run it.
        precision: weights' dtype; scoring wants fp32 (see docs/evaluation.md).
        batch_size: most sequences computed together; halved by itself when memory runs out.
    """

    def __init__(
        self,
        ref: ModelRef,
        device: Device = "auto",
        precision: Precision = "auto",
        batch_size: int = 32,
    ) -> None:
        self._ref, self._device, self._precision = ref, device, precision
        self.batch_size = batch_size
        self._waiting: list[_Request[Any]] = []
        self._arrived = asyncio.Event()
        self._submitted = 0
        self._stop = threading.Event()
        self._pump: asyncio.Task[None] | None = None

    @property
    def model(self) -> str:
        """Model identity, name@revision."""
        return self._ref.identity

    async def __aenter__(self) -> LocalEngine:
        self._model, self._tokenizer = await asyncio.to_thread(
            load_model, self._ref, self._device, self._precision
        )
        self.endpoint = f"local:{self._model.device.type}"
        self._limit = int(getattr(self._model.config, "max_position_embeddings", 2048))
        self._special = tuple(self._tokenizer.all_special_tokens)
        self._pump = asyncio.create_task(self._serve(), name="local-engine")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._pump:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        for request in self._waiting:
            request.answer.cancel()
        del self._model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    async def generate(self, call: Call) -> Completion:
        """Answer one call; a prompt beyond the context window is an 'error' completion."""
        tokens = self._encode(call.messages)
        if len(tokens) + call.sampling.max_new_tokens > self._limit:
            return Completion(
                text="",
                finish_reason="error",
                prompt_tokens=len(tokens),
                model=self.model,
                endpoint=self.endpoint,
            )
        sampling = call.sampling
        group = ("generate", *sampling.model_dump(exclude={"seed"}).values())
        # Deepest first: finish episodes before starting new ones; then similar lengths.
        rank = (-len(call.messages), len(tokens), call.key(self.model))
        completion: Completion = await self._ask(group, rank, (call, tokens))
        return completion

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        """Return log p(option | conversation), summed over each option's tokens (nats)."""
        prompt = self._encode(messages)
        answers = [self._tokenizer.encode(o, add_special_tokens=False) for o in options]
        longest = max(len(a) for a in answers)
        if len(prompt) + longest > self._limit:
            raise EngineError(f"A question of {len(prompt)} tokens exceeds the context window.")
        rank = (len(prompt), fingerprint([prompt, answers]))
        scores: list[float] = await self._ask(("choose",), rank, (prompt, answers))
        return scores

    async def text_logprob(self, text: str) -> tuple[float, int]:
        """Return the summed log-probability (nats) of a plain text, and its predicted tokens."""
        tokens = self._tokenizer.encode(text, add_special_tokens=False)[: self._limit]
        scores = await self._ask(("choose",), (len(tokens), text), (tokens[:1], [tokens[1:]]))
        return scores[0], len(tokens) - 1

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        turns = [
            {"role": m.role, "content": neutralise(m.content, self._special)} for m in messages
        ]
        text = self._tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False
        )
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    async def _ask(self, group: tuple[Any, ...], rank: tuple[Any, ...], payload: Any) -> Any:
        if self._pump is None or self._pump.done():
            raise EngineError("The local engine is not running; use it inside `async with`.")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(group, rank, payload, answer))
        self._submitted += 1
        self._arrived.set()
        return await answer

    async def _serve(self) -> None:
        while True:
            await self._arrived.wait()
            await self._settle()
            self._waiting = [r for r in self._waiting if not r.answer.done()]
            if not self._waiting:
                self._arrived.clear()
                continue
            batch = self._next_batch()
            work = self._generate_batch if batch[0].group[0] == "generate" else self._choose_batch
            try:
                answers = await asyncio.to_thread(self._within_memory, work, batch)
            except Exception as error:  # noqa: BLE001 - every waiting caller gets the real error
                for request in batch:
                    if not request.answer.done():
                        request.answer.set_exception(error)
                continue
            for request, answer in zip(batch, answers, strict=True):
                if not request.answer.done():
                    request.answer.set_result(answer)

    async def _settle(self) -> None:
        seen, quiet = self._submitted, 0
        while quiet < _SETTLED_TURNS:
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._submitted == seen else 0
            seen = self._submitted

    def _next_batch(self) -> list[_Request[Any]]:
        first = min(self._waiting, key=lambda r: (r.rank, r.group))
        alike = sorted((r for r in self._waiting if r.group == first.group), key=lambda r: r.rank)
        batch = alike[: self.batch_size]
        taken = {id(r) for r in batch}
        self._waiting = [r for r in self._waiting if id(r) not in taken]
        return batch

    def _within_memory(
        self, work: Callable[[list[_Request[Any]]], list[Any]], batch: list[_Request[Any]]
    ) -> list[Any]:
        try:
            return work(batch)
        except RuntimeError as error:
            if len(batch) == 1 or not any(w in str(error).lower() for w in _MEMORY_WORDS):
                raise
        gc.collect()
        half = len(batch) // 2
        self.batch_size = max(1, half)
        log.warning("Out of memory at %d sequences; going on with %d", len(batch), half)
        return self._within_memory(work, batch[:half]) + self._within_memory(work, batch[half:])

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-pad to [rows, longest]; return ids and attention mask on the model's device."""
        longest = max(len(r) for r in rows)
        pad = self._tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(r)) + list(r) for r in rows])
        mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows])
        return ids.to(self._model.device), mask.to(self._model.device)

    @torch.inference_mode()
    def _generate_batch(self, batch: list[_Request[Any]]) -> list[Completion]:
        calls = [request.payload[0] for request in batch]
        identity = fingerprint([call.key(self.model) for call in calls])
        ids, mask = self._pad([request.payload[1] for request in batch])
        torch.manual_seed(int(identity[:15], 16))
        output = self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            pad_token_id=self._tokenizer.pad_token_id,
            stopping_criteria=StoppingCriteriaList([_Stopped(self._stop)]),
            **_generate_options(calls[0].sampling),
        )
        if self._stop.is_set():
            raise EngineError("The local engine was stopped.")
        ends = self._end_tokens()
        return [
            self._completion(row[ids.shape[1] :].tolist(), ends, request, identity, len(batch))
            for row, request in zip(output, batch, strict=True)
        ]

    def _end_tokens(self) -> set[int]:
        ends = self._model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return {e for e in [*ends, self._tokenizer.eos_token_id] if e is not None}

    def _completion(
        self, tokens: list[int], ends: set[int], request: _Request[Any], identity: str, size: int
    ) -> Completion:
        stop = next((i for i, token in enumerate(tokens) if token in ends), None)
        said = tokens if stop is None else tokens[:stop]
        return Completion(
            text=self._tokenizer.decode(said, skip_special_tokens=True).strip(),
            finish_reason="length" if stop is None else "stop",
            prompt_tokens=len(request.payload[1]),
            completion_tokens=len(said) + (stop is not None),
            model=self.model,
            endpoint=self.endpoint,
            batch=identity,
            batch_size=size,
        )

    def _choose_batch(self, batch: list[_Request[Any]]) -> list[list[float]]:
        rows: list[_Row] = []
        spans = []
        for request in batch:
            prompt, answers = request.payload
            start = len(rows)
            # One-token options differ only in what is read off the last position: one row serves.
            if all(len(a) == 1 for a in answers):
                rows.append(_Row([*prompt, *answers[0]], 1, answers))
            else:
                rows.extend(_Row([*prompt, *a], len(a), [a]) for a in answers)
            spans.append((start, len(rows)))
        # A vocabulary-wide row of floats for every tail position is what costs memory here.
        tail = max(row.tail for row in rows)
        size = max(1, min(self.batch_size, 4096 // tail))
        parts = [self._read(rows[i : i + size]) for i in range(0, len(rows), size)]
        scores = [score for part in parts for score in part]
        return [[value for score in scores[a:b] for value in score] for a, b in spans]

    @torch.inference_mode()
    def _read(self, rows: list[_Row]) -> list[list[float]]:
        """Return, for each row, the summed log-probability of each of its endings."""
        tail = max(row.tail for row in rows)
        ids, mask = self._pad([row.tokens for row in rows])
        logits = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=tail + 1,
        ).logits[:, :-1]
        logprobs = logits.float().log_softmax(-1).cpu()
        return [
            [
                float(logprobs[i, -len(e) :].gather(1, torch.tensor(e)[:, None]).sum())
                for e in row.endings
            ]
            for i, row in enumerate(rows)
        ]


@dataclass
class _Row:
    """Tokens to run through the model, and the endings (token lists) to read off their tail."""

    tokens: list[int]
    tail: int
    endings: list[list[int]]


class _Stopped(StoppingCriteria):  # type: ignore[misc]
    """Ends a running batch at the next token when the engine closes."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._stop.is_set(), device=input_ids.device)


def _generate_options(sampling: Sampling) -> dict[str, Any]:
    options: dict[str, Any] = {
        "max_new_tokens": sampling.max_new_tokens,
        "repetition_penalty": sampling.repetition_penalty,
        "do_sample": sampling.temperature > 0,
    }
    if sampling.temperature > 0:
        options |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    return options
