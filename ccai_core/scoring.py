"""Read log-probabilities off a causal model: of endings of a prompt, or of each of its own tokens.

[scores] = read(model, [Endings([5, 6, 7], 1, [[7], [8]])], pad=0, batch_size=32)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

from ccai_core.decoding import Stopped, pad_left

# A row of the whole vocabulary is kept for each scored position: 2**27 floats are 512 MB.
_LOGITS_AT_ONCE = 2**27
# Positions of one prompt that are brought to fp32 at once.
_POSITIONS_AT_ONCE = 256


class TokenScores(NamedTuple):
    """Log-probabilities of a prompt of n tokens, in nats."""

    logprobs: list[float | None]
    """Of each token after those before it; of the first: None."""
    likeliest: list[tuple[int, float]]
    """What was likeliest after 1, 2, … n tokens: token and log-probability."""


class Row(Protocol):
    """Tokens to run through the model, and what to read off the logits of their tail."""

    tokens: list[int]

    @property
    def tail(self) -> int:
        """How many tokens, from the end, are scored."""

    def read(self, logits: torch.Tensor) -> Any:
        """Return the scores; logits are [positions, vocabulary], the last token's come last."""


@dataclass
class Endings:
    """A prompt with an ending, and the endings (token lists) to read off the tail."""

    tokens: list[int]
    tail: int
    endings: list[list[int]]

    def read(self, logits: torch.Tensor) -> list[float]:
        """Return the summed log-probability of each ending; logits are [positions, vocabulary]."""
        tail = logits[-self.tail - 1 : -1].float()
        total = tail.logsumexp(-1)
        ends = torch.tensor(self.endings, device=tail.device)  # [endings, tail]
        return _finite(float((tail.gather(1, e[:, None])[:, 0] - total).sum()) for e in ends)


@dataclass
class Whole:
    """A prompt of which every token is scored."""

    tokens: list[int]

    @property
    def tail(self) -> int:
        """How many tokens are read: all but the first."""
        return len(self.tokens) - 1

    def read(self, logits: torch.Tensor) -> TokenScores:
        """Return the score of each token; logits are [positions, vocabulary]."""
        following = torch.tensor([*self.tokens[1:], 0], device=logits.device)
        scores: list[float] = []
        likeliest: list[tuple[int, float]] = []
        logits = logits[-len(self.tokens) :]
        for start in range(0, len(self.tokens), _POSITIONS_AT_ONCE):
            part, tokens = (
                each[start : start + _POSITIONS_AT_ONCE] for each in (logits, following)
            )
            table = part.float().log_softmax(-1)
            scores += table.gather(1, tokens[:, None])[:, 0].tolist()
            best = table.max(-1)
            likeliest += zip(best.indices.tolist(), best.values.tolist(), strict=True)
        # After the last token nothing stands in the prompt: only what is likeliest is known.
        return TokenScores([None, *_finite(scores[:-1])], likeliest)


def _finite(values: Iterable[float]) -> list[float]:
    found = list(values)
    if not all(map(math.isfinite, found)):
        raise FloatingPointError("The model computes no finite log-probabilities.")
    return found


@torch.inference_mode()
def read(
    model: Any,
    rows: Sequence[Row],
    *,
    pad: int,
    batch_size: int,
    stopping: Callable[[], bool] = lambda: False,
) -> list[Any]:
    """Return what each row's `read` makes of the model's logits, in order.

    Args:
        model: a causal language model of transformers.
        rows: what to run through it.
        pad: any token; fills up shorter rows.
        batch_size: most rows at once; fewer where their logits would take too much memory.
        stopping: asked before each part of the rows; True ends the reading.

    Raises:
        Stopped: `stopping` said so.
        FloatingPointError: a log-probability is not a finite number.
    """
    positions = _LOGITS_AT_ONCE // model.config.get_text_config().vocab_size
    kept = max(row.tail for row in rows) + 1
    size = max(1, min(batch_size, positions // kept))
    results: list[Any] = []
    for start in range(0, len(rows), size):
        if stopping():
            raise Stopped
        part = rows[start : start + size]
        ids, mask = pad_left([row.tokens for row in part], pad, model.device)
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=max(row.tail for row in part) + 1,
        ).logits
        results += [row.read(tail) for row, tail in zip(part, logits, strict=True)]
    return results
