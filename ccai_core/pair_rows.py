"""Preference pairs without padding: each is one row, its prompt read once for both answers.

TRL reads a batch of pairs as twice as many sequences, padded to the longest. Here a pair is

    prompt … | last prompt token, chosen … | last prompt token, rejected …

with the positions that each token has in its own sequence, and an attention mask that lets each
answer see the prompt and itself. So nothing is computed for padding, the prompt is computed once
instead of twice, and the output layer only where an answer's token is predicted. Several pairs may
stand in one row, where no pair sees another: a GPU wants thousands of tokens at once, a CPU is as
fast with one pair after the other. The numbers are the same (tests/test_pair_rows.py: losses and
gradients against TRL's), and everything after the log-probabilities stays TRL's.

    add_pair_head(model)
    log_probs = model(rows=[row_of(prompt_ids, chosen_ids, rejected_ids)])
"""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask
from transformers.utils import is_triton_available
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import maybe_gather_lm_head_ctx

Row = dict[str, torch.Tensor]

# Words of the vocabulary in one tile of logits.
_TILE_WORDS = 32_768
# PyTorch's FlexAttention (Dong et al. 2024, arXiv 2412.05496), as transformers names it.
_SKIPPING = "flex_attention"
# Its least width of a head, and the least NVIDIA generation it is compiled for here.
_LEAST_HEAD, _LEAST_CAPABILITY = 16, (8, 0)
_SHARED, _CHOSEN, _REJECTED = 0, 1, 2
_BRANCHES = 3
# Of packed rows: the mask has the square of it.
_MOST_PACKED = 8192
# A model that does any of these to its logits is left to TRL, which knows how.
_LOGIT_CHANGES = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier",
    "logits_scaling",
)  # fmt: skip


def why_not(model: Any) -> str | None:
    """Say what keeps a model from reading pairs as rows; None if nothing does."""
    config = model.config.get_text_config()
    changes = [name for name in _LOGIT_CHANGES if getattr(config, name, None) not in (None, 1, 1.0)]
    if changes:
        return f"it changes its logits ({', '.join(changes)})"
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        return f"it has layers of another kind ({', '.join(sorted(kinds))})"
    if getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None):
        return "it is a mixture of experts"
    if config._attn_implementation not in ("sdpa", "eager"):
        return f"its attention is {config._attn_implementation}"
    return None


def row_of(prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int]) -> Row:
    """Lay out one pair.

    Returns:
        input_ids, position_ids and branch of shape [1, S]; predicts: the places in the row whose
        next token is an answer's, and targets: these tokens, of shape [C + R], chosen first.

    Raises:
        ValueError: the prompt has no token, so that nothing predicts the first answer token.
    """
    if not prompt:
        raise ValueError("a prompt needs at least one token")
    shared, last = list(prompt[:-1]), prompt[-1]
    p, c, r = len(shared), len(chosen), len(rejected)
    ids = [*shared, last, *chosen, last, *rejected]
    positions = [*range(p), *range(p, p + c + 1), *range(p, p + r + 1)]
    branch = [_SHARED] * p + [_CHOSEN] * (c + 1) + [_REJECTED] * (r + 1)
    second = p + c + 1
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "branch": torch.tensor([branch]),
        "predicts": torch.tensor([*range(p, p + c), *range(second, second + r)]),
        "targets": torch.tensor([*chosen, *rejected]),
    }


def pack(rows: Sequence[Row]) -> Row:
    """Lay out several pairs one behind the other; the targets follow in the order of the pairs."""
    starts = [0, *itertools.accumulate(row["input_ids"].shape[-1] for row in rows)]
    side_by_side = {
        name: torch.cat([row[name] for row in rows], dim=-1)
        for name in ("input_ids", "position_ids", "targets")
    }
    branches = [row["branch"] + _BRANCHES * n for n, row in enumerate(rows)]
    places = [row["predicts"] + start for row, start in zip(rows, starts, strict=False)]
    return {**side_by_side, "branch": torch.cat(branches, dim=-1), "predicts": torch.cat(places)}


def packs(rows: Sequence[Row], most: int = _MOST_PACKED) -> Iterator[list[Row]]:
    """Divide rows, in their order, into packs of at most `most` tokens, or of one row."""
    pack: list[Row] = []
    tokens = 0
    for row in rows:
        length = row["input_ids"].shape[-1]
        if pack and tokens + length > most:
            yield pack
            pack, tokens = [], 0
        pack.append(row)
        tokens += length
    if pack:
        yield pack


class PairCollator(DataCollatorForPreference):  # type: ignore[misc]
    """TRL's collator, which adds the rows of a batch; its padded tensors only tell the shapes."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return TRL's batch and, under `rows`, a row a pair."""
        batch: dict[str, Any] = super().torch_call(examples)
        batch["rows"] = [
            row_of(each["prompt_ids"], each["chosen_ids"], each["rejected_ids"])
            for each in examples
        ]
        return batch


def add_pair_head(model: Any, packed: bool = False) -> None:
    """Let `model(rows=rows)` return each row's log-probabilities, a tensor of shape [C + R] each.

    Through the model's own forward, so that what wraps it (DDP, DeepSpeed, PEFT) is passed through.
    `packed` computes as many of the rows at once as fit into 8,192 tokens, on a GPU with an
    attention that skips what no token sees.
    """
    if packed and _can_skip(model):
        model.set_attn_implementation(_SKIPPING)
    original = model.forward

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, rows: Sequence[Row] | None = None, **kwargs: Any) -> Any:
        if rows is None:
            return original(*args, **kwargs)
        if not packed:
            return [_log_probs(self, row) for row in rows]
        found: list[torch.Tensor] = []
        for several in packs(rows):
            lengths = [len(row["targets"]) for row in several]
            found += torch.split(_log_probs(self, pack(several)), lengths)
        return found

    model.forward = types.MethodType(forward, model)


def _log_probs(model: Any, row: Row) -> torch.Tensor:
    """Return the log-probability of every answer token of a row, the chosen answer's first."""
    read = model.base_model(
        input_ids=row["input_ids"],
        position_ids=row["position_ids"],
        attention_mask=_mask(model, row["branch"]),
        use_cache=False,
    )
    hidden = read.last_hidden_state[0, row["predicts"]]
    head = model.get_output_embeddings()
    with maybe_gather_lm_head_ctx(head.weight, head.bias):
        log_probs: torch.Tensor = ChunkedLogProbFunction.apply(
            hidden, head.weight, head.bias, row["targets"], 1.0, _TILE_WORDS, None, 1.0,
            ("log_probs",),
        )[0]  # fmt: skip
    return log_probs


def _can_skip(model: Any) -> bool:
    """Whether FlexAttention runs here: compiled by Triton, for a recent NVIDIA GPU."""
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return bool(
        model.device.type == "cuda"
        and torch.cuda.get_device_capability(model.device) >= _LEAST_CAPABILITY
        and is_triton_available()
        and model._supports_flex_attn
        and width >= _LEAST_HEAD
    )


def _mask(model: Any, branch: torch.Tensor) -> Any:
    """Return who sees whom: a mask [1, 1, S, S], or FlexAttention's blocks of one."""
    length = branch.shape[-1]
    attention = model.config.get_text_config()._attn_implementation
    sees = _sees(branch[0])
    if attention == _SKIPPING:
        return create_block_mask(sees, None, None, length, length, device=str(branch.device))
    place = torch.arange(length, device=branch.device)
    allowed = sees(None, None, place[:, None], place[None, :])[None, None]
    if attention == "eager":
        lowest = torch.finfo(model.dtype).min
        return torch.zeros_like(allowed, dtype=model.dtype).masked_fill(~allowed, lowest)
    return allowed


def _sees(branch: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Return what says whether place q sees place k: its pair's past, of the prompt or its branch.

    The arguments are FlexAttention's; those of batch and head play no part.
    """

    def sees(_: Any, __: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        mine, other = branch[q], branch[k]
        shared = (mine // _BRANCHES == other // _BRANCHES) & (other % _BRANCHES == _SHARED)
        return (q >= k) & (shared | (mine == other))

    return sees


@dataclass(frozen=True)
class _Output:
    """The fields of TRL's fused output that its DPO loss reads; those of metrics alone are zero."""

    log_probs: torch.Tensor
    entropy: torch.Tensor
    mean_logits: torch.Tensor
    is_top1: torch.Tensor


class ReadsRows:
    """Stands in for the model in TRL's loss: the same call, answered from rows."""

    def __init__(self, model: Any, rows: Sequence[Row]) -> None:
        self._model, self._rows = model, rows

    def __call__(self, *, labels: torch.Tensor, **_: Any) -> _Output:
        """Return log-probabilities where TRL looks for them: [2 * pairs, length - 1]."""
        found = self._model(rows=list(self._rows))
        told = labels[:, 1:] != -100
        # Row-major, as the mask is: all chosen answers, then all rejected ones.
        answers = [
            each.split([int(chosen), int(rejected)])
            for each, chosen, rejected in zip(found, *told.sum(1).chunk(2), strict=True)
        ]
        flat = torch.cat([side for both in zip(*answers, strict=True) for side in both])
        log_probs = flat.new_zeros(told.shape).masked_scatter(told, flat)
        nothing = torch.zeros_like(log_probs)
        return _Output(log_probs, nothing, nothing, torch.zeros_like(told))
