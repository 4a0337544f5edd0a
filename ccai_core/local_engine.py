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
from collections.abc import Callable, Sequence
from itertools import count
from types import TracebackType
from typing import Any

import torch

from ccai_core.batching import Batcher, OutOfMemoryError, Request
from ccai_core.chat_tokens import ChatTokens
from ccai_core.decoding import Stopped, decode, pad_left
from ccai_core.drawing import Draw
from ccai_core.errors import EngineError, ModelError
from ccai_core.models import Device, ModelRef, Precision, context_window, load_model
from ccai_core.scoring import Endings, Row, TokenScores, Whole, read
from ccai_core.types import Call, Completion, Message, Sampling, fingerprint

_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


class LocalEngine:
    """Generate, Choose and text log-probability on one model in this process.

    Args:
        ref: the resolved model.
        device: where to run it.
        precision: weights' dtype; scoring wants fp32 (see docs/evaluation.md).
        batch_size: most sequences computed together; halved by itself when memory runs out.
        max_length: context window in tokens; none: the model's own.
        gather_seconds: how long to wait for more questions from a network (see batching.py).
    """

    def __init__(
        self,
        ref: ModelRef,
        device: Device = "auto",
        precision: Precision = "auto",
        batch_size: int = 32,
        *,
        max_length: int | None = None,
        gather_seconds: float = 0.0,
    ) -> None:
        self._ref, self._device, self._precision = ref, device, precision
        self._batcher = Batcher(self._compute, batch_size, gather_seconds)
        self._max_length = max_length
        self._arrivals = count()
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

    @property
    def context(self) -> int:
        """How many tokens a prompt and its answer may have together; known while it runs."""
        self._check_running()
        return self._limit

    @property
    def vocabulary(self) -> int:
        """How many tokens there are, from 0 on; known while the engine runs."""
        self._check_running()
        return int(self._model.get_input_embeddings().weight.shape[0])

    @property
    def tokens(self) -> ChatTokens:
        """From conversations and texts to tokens; there while the engine runs."""
        self._check_running()
        return self._tokens

    @property
    def running(self) -> int:
        """How many questions are being computed at this moment."""
        return self._batcher.running

    @property
    def batches(self) -> int:
        """How many batches were computed so far."""
        return self._batcher.batches

    def stir(self) -> None:
        """Say that a caller has been answered elsewhere (from a journal) and may ask more."""
        self._batcher.stir()

    async def __aenter__(self) -> LocalEngine:
        self._model, self._tokenizer = await asyncio.to_thread(
            load_model, self._ref, self._device, self._precision
        )
        self.endpoint = f"local:{self._model.device.type}"
        self._limit = _window(self._ref, self._max_length)
        self._tokens = ChatTokens(self._tokenizer)
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
        tokens = self._tokens.of_chat(call.messages)
        if len(tokens) + call.sampling.max_new_tokens > self._limit:
            return Completion(
                text="",
                finish_reason="error",
                prompt_tokens=len(tokens),
                model=self.model,
                endpoint=self.endpoint,
            )
        draw = Draw(tokens, call.sampling, call.key(self.model))
        # Deepest first: finish episodes before starting new ones; then similar lengths.
        completion = await self._ask(draw, (-len(call.messages), len(tokens), draw.seed))
        return completion.model_copy(update={"text": completion.text.strip()})

    async def complete(
        self, tokens: Sequence[int], sampling: Sampling, stop: tuple[str, ...] = ()
    ) -> Completion:
        """Continue tokens as they are, up to the first `stop` text; the answer is not stripped.

        For callers that know nothing of each other: whoever asks first is answered first.

        Raises:
            EngineError: they are not tokens of the model, or exceed the context window.
        """
        self._check_tokens(tokens, sampling.max_new_tokens)
        seed = fingerprint([self.model, list(tokens), sampling.model_dump()], 32)
        return await self._ask(
            Draw(list(tokens), sampling, seed, stop), (next(self._arrivals), seed)
        )

    async def _ask(self, draw: Draw, rank: tuple[Any, ...]) -> Completion:
        completion: Completion = await self._batcher.ask(draw.group, rank, draw)
        return completion

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        """Return log p(option | conversation), summed over each option's tokens (nats).

        Raises:
            EngineError: there is no option or an empty one, or the context window is too small.
        """
        self._check_running()
        prompt = self._tokens.of_chat(messages)
        answers = [self._tokens.of_text(o) for o in options]
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
        tokens = self._tokens.of_text(text)[: self._limit]
        if len(tokens) < 2:
            return 0.0, 0
        scores = await self._batcher.ask(("text",), (len(tokens), text), (tokens[:1], [tokens[1:]]))
        return scores[0], len(tokens) - 1

    async def prompt_logprobs(self, tokens: Sequence[int]) -> TokenScores:
        """Return the log-probability of each token of a prompt, in order of arrival.

        Raises:
            EngineError: they are not tokens of the model, or exceed the context window.
        """
        self._check_tokens(tokens)
        rank = (next(self._arrivals), "")
        scores: TokenScores = await self._batcher.ask(("prompt",), rank, list(tokens))
        return scores

    def _check_tokens(self, tokens: Sequence[int], more: int = 0) -> None:
        if not 0 < len(tokens) <= self._limit - more:
            raise EngineError(
                f"A prompt of {len(tokens)} tokens and {more} new ones: there must be one at "
                f"least, and at most {self._limit} (the context window) together."
            )
        if min(tokens) < 0 or max(tokens) >= self.vocabulary:
            # On a GPU such a token would end the whole process, not only its own call.
            raise EngineError(f"Tokens of {self._ref.name} are 0 to {self.vocabulary - 1}.")

    def _check_running(self) -> None:
        if self._model is None:
            raise EngineError("The local engine is not running; use it inside `async with`.")

    def _compute(self, batch: list[Request]) -> Sequence[Any]:
        kind = batch[0].group[0]
        try:
            if kind == "generate":
                return self._generate_batch(batch)
            return self._prompt_batch(batch) if kind == "prompt" else self._score_batch(batch)
        except Stopped:
            raise EngineError("The local engine was stopped.") from None
        except (RuntimeError, MemoryError) as error:
            message = str(error) or type(error).__name__
            if not isinstance(error, MemoryError) and not _tells_of_memory(message):
                raise
        # Only here, after the error and its frames are gone, can their tensors be freed.
        _free_memory()
        raise OutOfMemoryError(message.splitlines()[0][:200])

    def _generate_batch(self, batch: list[Request]) -> list[Completion]:
        draws: list[Draw] = [request.payload for request in batch]
        identity = fingerprint([draw.seed for draw in draws])
        pad = self._tokenizer.pad_token_id
        ids, mask = pad_left([draw.tokens for draw in draws], pad, self._model.device)
        ends = self._end_tokens()
        rows = decode(
            self._model,
            ids,
            mask,
            draws[0].sampling,
            ends=ends,
            seeds=[draw.seed for draw in draws],
            stopping=self._batcher.stopping.is_set,
            enough=self._enough(batch),
        )
        return [
            self._completion(row, ends, draw, identity, len(batch))
            for row, draw in zip(rows, draws, strict=True)
        ]

    def _enough(self, batch: list[Request]) -> Callable[[int, list[int]], bool]:
        """Return what ends a row early: its stop text, or a caller that waits no longer."""

        def enough(row: int, said: list[int]) -> bool:
            request = batch[row]
            return request.answer.done() or request.payload.is_over(said, self._tokenizer)

        return enough

    def _end_tokens(self) -> set[int]:
        ends = self._model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return {e for e in [*ends, self._tokenizer.eos_token_id] if e is not None}

    def _completion(
        self, tokens: list[int], ends: set[int], draw: Draw, identity: str, size: int
    ) -> Completion:
        stopped = tokens[-1] in ends
        said = tokens[:-1] if stopped else tokens
        text, cut = draw.cut(self._tokenizer.decode(said, skip_special_tokens=True))
        return Completion(
            text=text,
            finish_reason="stop" if stopped or cut else "length",
            prompt_tokens=len(draw.tokens),
            completion_tokens=len(tokens),
            model=self.model,
            endpoint=self.endpoint,
            batch=identity,
            batch_size=size,
        )

    def _score_batch(self, batch: list[Request]) -> list[list[float]]:
        rows: list[Endings] = []
        spans = []
        for request in batch:
            prompt, answers = request.payload
            start = len(rows)
            # One-token options differ only in what is read off the last position: one row serves.
            if all(len(a) == 1 for a in answers):
                rows.append(Endings([*prompt, *answers[0]], 1, answers))
            else:
                rows.extend(Endings([*prompt, *a], len(a), [a]) for a in answers)
            spans.append((start, len(rows)))
        scores = self._read(rows)
        return [[value for score in scores[a:b] for value in score] for a, b in spans]

    def _prompt_batch(self, batch: list[Request]) -> list[TokenScores]:
        return self._read([Whole(request.payload) for request in batch])

    def _read(self, rows: Sequence[Row]) -> list[Any]:
        try:
            return read(
                self._model,
                rows,
                pad=self._tokenizer.pad_token_id,
                batch_size=self._batcher.batch_size,
                stopping=self._batcher.stopping.is_set,
            )
        except FloatingPointError:
            raise EngineError(
                f"{self._ref.name}: computes no finite log-probabilities in {self.dtype}. Take "
                "--precision fp32; if it stays, the weights are damaged."
            ) from None


def _window(ref: ModelRef, max_length: int | None) -> int:
    own = context_window(ref)
    if max_length is not None and max_length > own:
        raise ModelError(f"{ref.name}: reads {own} tokens at most; --max-length asks {max_length}.")
    return max_length or own


def _tells_of_memory(message: str) -> bool:
    return any(words in message.lower() for words in _MEMORY_WORDS)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
