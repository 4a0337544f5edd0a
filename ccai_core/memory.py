"""Will it fit? Make a training lighter, step by step, until its estimate does.

In this order, from what changes least: fewer pairs computed at once (an update stays the same
pairs), activations computed twice instead of kept, optimizer states and then weights in the host's
memory (CUDA), and at last adapters (LoRA) instead of all weights.

    chosen = plan(read_shape(ref.path), config, row=250, precision="fp32", device="cpu")
    config = as_planned(config, chosen)
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ccai_core.config import Config
from ccai_core.errors import ModelError
from ccai_core.memory_estimate import (
    MemoryEstimate,
    Method,
    ModelShape,
    estimate,
    host_mb,
    read_header,
    read_shape,
)

if TYPE_CHECKING:
    from ccai_core.training_config import TrainingConfig

__all__ = [
    "MemoryEstimate",
    "MemoryPlan",
    "Method",
    "ModelShape",
    "as_planned",
    "estimate",
    "give_back",
    "is_out_of_memory",
    "peak_mb",
    "plan",
    "read_header",
    "read_shape",
    "smaller_batches",
]

Zero = Literal[0, 1, 2, 3]
Offload = Literal["none", "optimizer", "all"]

_MB = 1024**2
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class MemoryPlan(Config):
    """How the run will be computed so that it fits, and why."""

    method: Method = Field(description="full or lora.")
    gradient_checkpointing: bool = Field(description="Whether activations are recomputed.")
    batch_size: int = Field(1, ge=1, description="Pairs computed together.")
    gradient_accumulation: int = Field(1, ge=1, description="Batches an update, of all processes.")
    zero: Zero = Field(0, description="What DeepSpeed divides over the processes.")
    offload: Offload = Field("none", description="What waits in the host's memory.")
    estimate: MemoryEstimate = Field(description="Of this plan, for each process.")
    total_mb: int = Field(description="Sum of the estimate.")
    host_mb: int = Field(0, description="Estimated for what each process offloads to the host.")
    limit_mb: int | None = Field(description="max_memory_mb, if set.")
    reason: str = Field(description="Why this plan.")


def plan(
    shape: ModelShape, config: TrainingConfig, row: int, precision: str, device: str
) -> MemoryPlan:
    """Choose the first way that fits `max_memory_mb`, the memory of each process.

    Without it the run goes as asked. What a user set explicitly is not changed, except that fewer
    pairs are computed at once and LoRA may replace full training.

    Args:
        shape: the model's size.
        config: what was asked for.
        row: tokens of the longest pair, as a row.
        precision: arithmetic of the steps.
        device: what it runs on.

    Raises:
        ModelError: nothing fits; names the lightest way, and what it needs.
    """
    limit = config.max_memory_mb
    tried: list[tuple[int, TrainingConfig]] = []
    for way in ways(config, device):
        need = estimate(shape, way, row, precision, device)
        if limit is None or need.total <= limit:
            return MemoryPlan(
                method=way.method,
                gradient_checkpointing=bool(way.gradient_checkpointing),
                batch_size=way.batch_size,
                gradient_accumulation=way.gradient_accumulation,
                zero=way.zero,
                offload=way.offload,
                estimate=need,
                total_mb=need.total,
                host_mb=host_mb(shape, way, precision),
                limit_mb=limit,
                reason=_reason(config, tried, way, need.total),
            )
        tried.append((need.total, way))
    least, lightest = min(tried, key=lambda each: each[0])
    raise ModelError(
        f"Training does not fit into max_memory_mb={limit}: the lightest way, {_way(lightest)}, is "
        f"estimated at {least} MB{_each(config)}. Raise max_memory_mb to {least}, lower max_length "
        f"(longest pair: {row} tokens){_more_ways(config)}, or take a smaller model."
    )


def ways(config: TrainingConfig, device: str) -> Iterator[TrainingConfig]:
    """Yield what is asked for and then ever lighter ways to it; the last ones train adapters."""
    asked = config.gradient_checkpointing
    for method in ("full", "lora") if config.method == "full" else ("lora",):
        for zero, offload in _offloads(config, device):
            for again in (False, True) if asked is None else (asked,):
                way: TrainingConfig | None = config.model_copy(
                    update={
                        "method": method, "zero": zero, "offload": offload,
                        "gradient_checkpointing": again,
                    }
                )  # fmt: skip
                while way:
                    yield way
                    way = smaller_batches(way)


def _offloads(config: TrainingConfig, device: str) -> Iterator[tuple[Zero, Offload]]:
    yield config.zero, config.offload
    # Several processes that share nothing yet are asked for, and not made to, by an error's advice.
    if device != "cuda" or (config.world > 1 and not config.zero):
        return
    if config.offload == "none":
        yield config.zero or 2, "optimizer"
    if config.offload != "all":
        yield 3, "all"


def smaller_batches(config: TrainingConfig) -> TrainingConfig | None:
    """Return settings that compute half as many pairs at once, an update being the same pairs.

    None if there is only one already. An odd number is divided by its smallest divisor.
    """
    size = config.batch_size
    if size == 1:
        return None
    parts = next(n for n in range(2, size + 1) if size % n == 0)
    return config.model_copy(
        update={
            "batch_size": size // parts,
            "gradient_accumulation": config.gradient_accumulation * parts,
        }
    )


def as_planned(config: TrainingConfig, chosen: MemoryPlan) -> TrainingConfig:
    """Return the settings with which a plan is carried out; `method` stays what was asked for."""
    return config.model_copy(
        update={
            "batch_size": chosen.batch_size,
            "gradient_accumulation": chosen.gradient_accumulation,
            "zero": chosen.zero,
            "offload": chosen.offload,
        }
    )


def _way(way: TrainingConfig) -> str:
    words = [
        way.method,
        f"batch_size {way.batch_size}",
        "with gradient checkpointing" if way.gradient_checkpointing else "",
        f"zero {way.zero}" if way.zero else "",
        f"offload {way.offload}" if way.offload != "none" else "",
    ]
    return ", ".join(filter(None, words))


def _each(config: TrainingConfig) -> str:
    return f" for each of {config.world} processes" if config.world > 1 else ""


def _more_ways(config: TrainingConfig) -> str:
    return ", set zero to 3" if config.world > 1 and config.zero < 3 else ""


def _reason(
    config: TrainingConfig, tried: list[tuple[int, TrainingConfig]], way: TrainingConfig, total: int
) -> str:
    limit = config.max_memory_mb
    if limit is None:
        return f"{_way(way)}, estimated {total} MB; no max_memory_mb was set."
    refused = f"{_way(tried[0][1])} needs {tried[0][0]} MB; " if tried else ""
    if others := len(tried) - 1 if tried else 0:
        refused += f"{others} lighter {'way does' if others == 1 else 'ways do'} not fit; "
    reason = f"{refused}{_way(way)} needs {total} MB of {limit} MB{_each(config)} (estimates)."
    if config.method == "full" and way.method == "lora":
        reason += (
            f" LoRA replaces full training: learning_rate {config.learning_rate:g} may be too low "
            "for it, about 1e-5 is usual."
        )
    return reason


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception of torch means that memory ran out."""
    return any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def give_back(device: str) -> None:
    """Free what nothing refers to any more, the device's cached blocks included."""
    import torch

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()


def peak_mb(device: str) -> int:
    """Return the peak so far in MB: of the allocator on CUDA, else the resident set."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated() / _MB)
    import resource
    import sys

    # Linux counts kilobytes here, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MB)
