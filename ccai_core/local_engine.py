"""A model in this process as an engine: batches whatever calls are waiting, deterministically.

Concurrent calls are gathered (see batching.py), the deepest conversations first, and each draw is
seeded by its call (see decoding.py): a run that was killed and continued from its journal makes the
same text as one that was not, on the same kind of machine with the same precision and batch size.

    async with LocalEngine(ref, batch_size=32) as engine:
        answers = await asyncio.gather(*(engine.generate(call) for call in calls))
"""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from ccai_core.batching import Batcher, OutOfMemoryError, Request
from ccai_core.control_tokens import neutralise
from ccai_core.decoding import Stopped, decode
from ccai_core.errors import EngineError
from ccai_core.models import Device, ModelRef, Precision, load_model
from ccai_core.types import Call, Completion, Message, fingerprint

_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")
# Scoring keeps a row of the whole vocabulary for each scored position: 2**27 floats are 512 MB.
_LOGITS_AT_ONCE = 2**27


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
        self._batcher = Batcher(self._compute, batch_size)
        self._model: Any = None

    @property
    def model(self) -> str:
        """Model identity, name@revision."""
        return self._ref.identity

    @property
    def dtype(self) -> str:
        """Weights' dtype, e.g. 'float32'; known while the engine runs."""
        self._check_running()
        return str(self._model.dtype).removeprefix("torch.")

    def stir(self) -> None:
        """Say that a caller has been answered elsewhere (from a journal) and may ask more."""
        self._batcher.stir()

    async def __aenter__(self) -> LocalEngine:
        self._model, self._tokenizer = await asyncio.to_thread(
            load_model, self._ref, self._device, self._precision
        )
        self.endpoint = f"local:{self._model.device.type}"
        self._limit = int(getattr(self._model.config, "max_position_embeddings", 2048))
        self._special = tuple(self._tokenizer.all_special_tokens)
        self._batcher.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The batch being computed ends at its next token; only then may the weights go.
        await self._batcher.stop()
        self._model = None
        _free_memory()

    async def generate(self, call: Call) -> Completion:
        """Answer one call; a prompt beyond the context window is an 'error' completion."""
        self._check_running()
        self.stir()
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
        completion: Completion = await self._batcher.ask(group, rank, (call, tokens))
        return completion

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        """Return log p(option | conversation), summed over each option's tokens (nats).

        Raises:
            EngineError: there is no option or an empty one, or the context window is too small.
        """
        self._check_running()
        prompt = self._encode(messages)
        answers = [self._tokenizer.encode(o, add_special_tokens=False) for o in options]
        if not all(answers) or not answers:
            raise EngineError(f"Options to choose from must be texts, not empty: {options!r:.200}.")
        if len(prompt) + max(map(len, answers)) > self._limit:
            raise EngineError(
                f"A question of {len(prompt)} tokens and its options exceed the context window of "
                f"{self._limit} tokens. Shorten it, or take a model with a larger one."
            )
        rank = (len(prompt), fingerprint([prompt, answers]))
        scores: list[float] = await self._batcher.ask(("choose",), rank, (prompt, answers))
        return scores

    async def text_logprob(self, text: str) -> tuple[float, int]:
        """Return the summed log-probability (nats) of a plain text, and its predicted tokens.

        The first token is not predicted, and a text is read up to the context window's end.
        """
        self._check_running()
        tokens = self._tokenizer.encode(text, add_special_tokens=False)[: self._limit]
        if len(tokens) < 2:
            return 0.0, 0
        scores = await self._batcher.ask(("text",), (len(tokens), text), (tokens[:1], [tokens[1:]]))
        return scores[0], len(tokens) - 1

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        turns = [
            {"role": m.role, "content": neutralise(m.content, self._special)} for m in messages
        ]
        text = self._tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False
        )
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _check_running(self) -> None:
        if self._model is None:
            raise EngineError("The local engine is not running; use it inside `async with`.")

    def _compute(self, batch: list[Request]) -> Sequence[Any]:
        work = self._generate_batch if batch[0].group[0] == "generate" else self._score_batch
        try:
            return work(batch)
        except (RuntimeError, MemoryError) as error:
            message = str(error) or type(error).__name__
            if not isinstance(error, MemoryError) and not _tells_of_memory(message):
                raise
        # Only here, after the error and its frames are gone, can their tensors be freed.
        _free_memory()
        raise OutOfMemoryError(message.splitlines()[0][:200])

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-pad to [rows, longest]; return ids and attention mask on the model's device."""
        longest = max(len(r) for r in rows)
        pad = self._tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(r)) + list(r) for r in rows])
        mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows])
        return ids.to(self._model.device), mask.to(self._model.device)

    @torch.inference_mode()
    def _generate_batch(self, batch: list[Request]) -> list[Completion]:
        calls = [request.payload[0] for request in batch]
        identity = fingerprint([call.key(self.model) for call in calls])
        ids, mask = self._pad([request.payload[1] for request in batch])
        ends = self._end_tokens()
        try:
            rows = decode(
                self._model,
                ids,
                mask,
                calls[0].sampling,
                ends=ends,
                seeds=[call.key(self.model) for call in calls],
                stopping=self._batcher.stopping.is_set,
            )
        except Stopped:
            raise EngineError("The local engine was stopped.") from None
        return [
            self._completion(row, ends, request, identity, len(batch))
            for row, request in zip(rows, batch, strict=True)
        ]

    def _end_tokens(self) -> set[int]:
        ends = self._model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return {e for e in [*ends, self._tokenizer.eos_token_id] if e is not None}

    def _completion(
        self, tokens: list[int], ends: set[int], request: Request, identity: str, size: int
    ) -> Completion:
        stopped = tokens[-1] in ends
        said = tokens[:-1] if stopped else tokens
        return Completion(
            text=self._tokenizer.decode(said, skip_special_tokens=True).strip(),
            finish_reason="stop" if stopped else "length",
            prompt_tokens=len(request.payload[1]),
            completion_tokens=len(tokens),
            model=self.model,
            endpoint=self.endpoint,
            batch=identity,
            batch_size=size,
        )

    def _score_batch(self, batch: list[Request]) -> list[list[float]]:
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
        positions = _LOGITS_AT_ONCE // self._model.config.get_text_config().vocab_size
        fitting = positions // (max(row.tail for row in rows) + 1)
        size = max(1, min(self._batcher.batch_size, fitting))
        scores: list[list[float]] = []
        for i in range(0, len(rows), size):
            if self._batcher.stopping.is_set():
                raise EngineError("The local engine was stopped.")
            scores += self._read(rows[i : i + size])
        return [[value for score in scores[a:b] for value in score] for a, b in spans]

    @torch.inference_mode()
    def _read(self, rows: list[_Row]) -> list[list[float]]:
        """Return, for each row, the summed log-probability of each of its endings."""
        ids, mask = self._pad([row.tokens for row in rows])
        logits = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=max(row.tail for row in rows) + 1,
        ).logits[:, :-1]
        scores = [row.read(tail) for row, tail in zip(rows, logits, strict=True)]
        if not all(math.isfinite(value) for score in scores for value in score):
            raise EngineError(
                f"{self._ref.name}: computes no finite log-probabilities in {self.dtype}. Take "
                "--precision fp32; if it stays, the weights are damaged."
            )
        return scores


@dataclass
class _Row:
    """Tokens to run through the model, and the endings (token lists) to read off their tail."""

    tokens: list[int]
    tail: int
    endings: list[list[int]]

    def read(self, logits: torch.Tensor) -> list[float]:
        """Return the summed log-probability of each ending; logits are [positions, vocabulary]."""
        tail = logits[-self.tail :].float()
        total = tail.logsumexp(-1)
        ends = torch.tensor(self.endings, device=tail.device)  # [endings, tail]
        return [float((tail.gather(1, e[:, None])[:, 0] - total).sum()) for e in ends]


def _tells_of_memory(message: str) -> bool:
    return any(words in message.lower() for words in _MEMORY_WORDS)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
