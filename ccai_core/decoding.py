"""Draw tokens for a batch of conversations: what finished leaves the batch, each row its own dice.

transformers' `generate` computes every row until the longest one ends, and sorts the whole
vocabulary at each step; on a CPU that is most of the time. Here rows that have ended are taken out
of the batch, nucleus sampling (Holtzman et al. 2020, arXiv 1904.09751) looks at the likeliest
tokens first, and a row's draws depend on its own seed, whoever shares the batch.

    rows = decode(model, ids, mask, Sampling(max_new_tokens=64), ends={2}, seeds=["a", "b"])
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch

from ccai_core.types import Sampling

# Likeliest tokens that nucleus sampling looks at first; more only where their mass falls short.
_LIKELIEST = 128
# Rows are taken out of the cache once this share of them has ended: copying costs a little too.
_ENDED_SHARE = 0.2


class Stopped(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Decoding was asked to end before it was done."""


def pad_left(
    rows: Sequence[Sequence[int]], pad: int, device: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Left-pad to [rows, longest]; return ids and attention mask, on the device."""
    longest = max(len(r) for r in rows)
    ids = torch.tensor([[pad] * (longest - len(r)) + list(r) for r in rows])
    mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows])
    return ids.to(device), mask.to(device)


@torch.inference_mode()
def decode(
    model: Any,
    ids: torch.Tensor,
    mask: torch.Tensor,
    sampling: Sampling,
    *,
    ends: Collection[int],
    seeds: Sequence[str],
    stopping: Callable[[], bool] = lambda: False,
    enough: Callable[[int, list[int]], bool] = lambda row, said: False,
) -> list[list[int]]:
    """Return the new tokens of each row, its end token included where it came to one.

    Args:
        model: a causal language model of transformers.
        ids: left-padded prompts, [rows, tokens].
        mask: 1 where a prompt has a token, [rows, tokens].
        sampling: how tokens are drawn; its own seed is not used, `seeds` are.
        ends: tokens after which a row has ended.
        seeds: one a row; the same prompt and seed draw the same, up to rounding in the model.
        stopping: asked before each token; True ends decoding.
        enough: asked after each token, with a row's number and what it has said; True ends the row.

    Raises:
        Stopped: `stopping` said so.
    """
    said: list[list[int]] = [[] for _ in seeds]
    dice = [random.Random(seed) for seed in seeds]
    live = list(range(len(seeds)))  # which row of `said` each row of the batch is
    ended: set[int] = set()
    seen = _seen(ids, mask, model) if sampling.repetition_penalty > 1 else None
    step, cache = ids, None
    for _ in range(sampling.max_new_tokens):
        if stopping():
            raise Stopped
        logits, cache = _forward(model, step, mask, cache)
        drawn = _draw(logits, seen, sampling, [dice[row] for row in live])
        for row, token in zip(live, drawn.tolist(), strict=True):
            if row not in ended:
                said[row].append(token)
                if token in ends or enough(row, said[row]):
                    ended.add(row)
        if len(ended) == len(seeds):
            break
        if seen is not None:
            seen.scatter_(1, drawn[:, None], True)
        step, mask = drawn[:, None], torch.cat([mask, mask.new_ones(len(live), 1)], 1)
        kept = [place for place, row in enumerate(live) if row not in ended]
        if len(kept) <= (1 - _ENDED_SHARE) * len(live):
            places = torch.tensor(kept, device=ids.device)
            cache.batch_select_indices(places)
            live = [live[place] for place in kept]
            step, mask = step[places], mask[places]
            seen = seen[places] if seen is not None else None
    return said


def _forward(
    model: Any, step: torch.Tensor, mask: torch.Tensor, cache: Any
) -> tuple[torch.Tensor, Any]:
    """Return the logits after the last token of each row, [rows, vocabulary], and the cache."""
    output = model(
        input_ids=step,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, -step.shape[1] :],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1].float(), output.past_key_values


def _seen(ids: torch.Tensor, mask: torch.Tensor, model: Any) -> torch.Tensor:
    """Return which words of the vocabulary stand in each prompt, [rows, vocabulary]; no padding."""
    size = model.get_output_embeddings().weight.shape[0]
    counts = torch.zeros(ids.shape[0], size, dtype=mask.dtype, device=ids.device)
    return counts.scatter_add_(1, ids, mask) > 0


def _draw(
    logits: torch.Tensor,
    seen: torch.Tensor | None,
    sampling: Sampling,
    dice: Sequence[random.Random],
) -> torch.Tensor:
    """Return one token a row, [rows], from logits [rows, vocabulary]."""
    if seen is not None:
        # Keskar et al. 2019 (arXiv 1909.05858), section 4.1, in the form that everybody uses.
        penalty = sampling.repetition_penalty
        held_back = torch.where(logits > 0, logits / penalty, logits * penalty)
        logits = torch.where(seen, held_back, logits)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    shares, tokens = _nucleus(logits, sampling.top_p)
    # Doubles, and a draw below the sum itself, so that rounding never points past the last token.
    sums = shares.double().cumsum(-1)
    points = torch.tensor([each.random() for each in dice], dtype=torch.double, device=sums.device)
    places = torch.searchsorted(sums, (points * sums[:, -1])[:, None], right=True)
    return tokens.gather(1, places.clamp(max=tokens.shape[1] - 1))[:, 0]


def _nucleus(logits: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smallest likeliest set with mass `top_p`: (probabilities, 0 outside; tokens)."""
    total = logits.logsumexp(-1, keepdim=True)
    size = min(_LIKELIEST, logits.shape[1])
    while True:
        likeliest, tokens = logits.topk(size, dim=-1)
        shares = (likeliest - total).exp()
        before = shares.cumsum(-1) - shares
        if size == logits.shape[1] or bool((before[:, -1] >= top_p).all()):
            # The token that reaches the mass belongs to the set.
            return shares.masked_fill(before >= top_p, 0), tokens
        size = min(8 * size, logits.shape[1])
