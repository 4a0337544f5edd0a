"""What a line of a training log says beyond the loss: the distance from the reference, the speed.

`kl` is the estimator k1 of Schulman ("Approximating KL divergence", 2020): the mean over answers of
log p(policy) - log p(reference), in nats an answer; `kl_token` divides by the answers' mean length.
TRL logs rewards, which are beta times that, so it costs nothing. It is taken on the answers of the
data, chosen and rejected alike, not on samples of the policy: so it is no estimate of the
Kullback-Leibler divergence in the strict sense, and falls below 0 when both answers become less
likely, as they often do in DPO. Read it as how far, and which way, the policy has moved from the
reference on this data. (k3, exp(-x) - 1 + x, would need every answer's x and not their mean, and
with x of many nats an answer it says nothing.)

    line = measured(logs, "eval_", beta=0.1, read=Read(...))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from ccai_core import memory
from ccai_core.ranks import this_rank
from ccai_core.throughput import Meter, Read, ceiling, work_of

# TRL's names on the left, ours (log, curve, MLflow) on the right.
_NAMES = {
    "loss": "loss",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "logps/chosen": "logp_chosen",
    "logps/rejected": "logp_rejected",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
}


def measured(
    logs: Mapping[str, Any], prefix: str, beta: float | None, read: Read
) -> dict[str, Any]:
    """Return a step's or an evaluation's metrics by our names; without `beta` none of the KL."""
    found = {ours: logs[prefix + trl] for trl, ours in _NAMES.items() if prefix + trl in logs}
    if beta and {"reward_chosen", "reward_rejected"} <= found.keys():
        found["kl"] = (found["reward_chosen"] + found["reward_rejected"]) / 2 / beta
        if read.answers:
            found["kl_token"] = found["kl"] * 2 * read.pairs / read.answers
    return found


class Speed:
    """The speed of all processes together, and how well this device is used."""

    def __init__(self, model: Any, device: str, precision: str) -> None:
        self.meter = Meter(model)
        self.ceiling = ceiling(device, precision)
        self._work, self._device = work_of(model), device

    def about(self) -> dict[str, Any]:
        """Return what MFU is measured against, for the start's line."""
        return {
            "ceiling_tflops": round(self.ceiling.flops / 1e12, 3),
            "ceiling_from": self.ceiling.source,
        }

    def take(self, training: bool = True) -> tuple[Read, dict[str, float]]:
        """Return what all processes have read since the last call, and the speed of training.

        All processes have to call it.
        """
        mine, seconds = self.meter.take(training)
        parts = this_rank().gather(mine)
        read = sum(parts, Read())
        if not training or not seconds:
            return read, {}
        now = memory_now_mb(self._device)
        possible = self.ceiling.flops * seconds * len(parts)
        return read, {
            "pairs_per_second": round(read.pairs / seconds, 3),
            "tokens_per_second": round(read.tokens / seconds, 1),
            "padding": round(read.padding, 4),
            "mfu": round(self._work.flops(read) / possible, 4),
            "memory_mb": now,
            "peak_memory_mb": max(now, memory.peak_mb(self._device)),
        }


def memory_now_mb(device: str) -> int:
    """Return what is taken now, in MB: by the allocator on CUDA, else the resident set."""
    if device == "cuda":
        import torch

        return torch.cuda.memory_allocated() >> 20
    import psutil

    return int(psutil.Process().memory_info().rss) >> 20


def mean_lengths(dataset: Any) -> dict[str, float]:
    """Return how many tokens the chosen and the rejected answers of a data set have on average."""
    found = {}
    for side in ("chosen", "rejected"):
        if f"{side}_ids" in dataset.column_names and len(dataset):
            lengths = pc.list_value_length(dataset.data.column(f"{side}_ids"))
            found[f"{side}_tokens"] = round(pc.mean(lengths).as_py(), 1)
    return found
