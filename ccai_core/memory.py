"""Will it fit? Estimate a DPO training run's memory and make the run lighter until it does.

The parts are weights, gradients, AdamW's two moments, activations kept for the backward pass (a
row a pair, see pair_rows), and the tile of logits in which log-probabilities are computed. The
reference model costs nothing: its log-probabilities are computed before the first step. Constants
are measured on a 135M Llama on CPU (benchmarks/training_memory.py); those for CUDA and MPS are
derived, not measured.

    chosen = plan(read_shape(ref.path), config, row=250, precision="fp32", device="cpu")
"""

from __future__ import annotations

import gc
import json
import struct
from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ccai_core.config import Config
from ccai_core.errors import ModelError

if TYPE_CHECKING:
    from ccai_core.training_config import TrainingConfig

Method = Literal["full", "lora"]

_MB = 1024**2
# TRL computes log-probabilities on tiles of this many tokens by this many words of the vocabulary.
_TILE_TOKENS, _TILE_WORDS = 4096, 32_768
# Copies of that tile alive at once: torch operations on CPU and MPS, one fused kernel on CUDA.
_TILE_COPIES = {"cpu": 7.0, "mps": 7.0, "cuda": 1.0}
# Numbers kept for the backward pass, per number that a block's linear maps put out; and what
# adapters with dropout add to it (the dropped-out input and its mask).
_KEPT: dict[Method, float] = {"full": 2.34, "lora": 2.13}
_KEPT_FOR_DROPOUT = 1.4
# What the allocator cannot use again. On CPU adapters leave many small holes (glibc's heap).
_FRAGMENTS: dict[tuple[str, Method], float] = {("cpu", "full"): 1.15, ("cpu", "lora"): 1.4}
# Recomputing leaves more of them, of a size that hardly depends on the pairs.
_HOLES_MB: dict[tuple[str, Method], int] = {("cpu", "full"): 350, ("cpu", "lora"): 700}
# Python, torch, transformers and TRL themselves; on CUDA the context and cuBLAS workspaces.
_RUNTIME_MB = {"cpu": 600, "mps": 600, "cuda": 700}
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class ModelShape(Config):
    """What the files of a model say about its size, without loading it."""

    parameters: int = Field(description="All weights; tied ones once.")
    layers: int = Field(description="Transformer blocks.")
    hidden: int = Field(description="Width of the residual stream.")
    vocabulary: int = Field(description="Words in the output layer.")
    context: int = Field(description="Most tokens the model can read.")
    linear_ends: int = Field(description="Inputs plus outputs of all linear maps in the blocks.")
    linear_outputs: int = Field(description="Outputs of all linear maps in the blocks.")
    dtype: str = Field(description="Format of most weights on disk, as safetensors names it.")


class MemoryEstimate(Config):
    """Estimated peak in MB (2**20 bytes), by what takes it."""

    weights: int = Field(description="The model: fp32, plus half-precision copies.")
    gradients: int = Field(description="One number a trained weight.")
    optimizer: int = Field(description="AdamW's two moments of every trained weight.")
    activations: int = Field(description="Kept from the forward for the backward pass.")
    logits: int = Field(description="Workspace of the log-probabilities.")
    runtime: int = Field(description="Libraries and device context.")

    @property
    def total(self) -> int:
        """Everything together."""
        return sum(self.model_dump().values())


class MemoryPlan(Config):
    """How the run will be computed so that it fits, and why."""

    method: Method = Field(description="full or lora.")
    gradient_checkpointing: bool = Field(description="Whether activations are recomputed.")
    estimate: MemoryEstimate = Field(description="Of this plan.")
    total_mb: int = Field(description="Sum of the estimate.")
    limit_mb: int | None = Field(description="max_memory_mb, if set.")
    reason: str = Field(description="Why this plan.")


def read_header(file: Path) -> dict[str, Any]:
    """Return the header of a safetensors file: tensor name to dtype, shape and offsets."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header: dict[str, Any] = json.loads(opened.read(length))
    header.pop("__metadata__", None)
    return header


def read_shape(folder: Path) -> ModelShape:
    """Read a model's size from config.json and the headers of its safetensors files.

    Raises:
        ModelError: a file is damaged, or the configuration is not that of a causal language model.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = {
            name: tensor
            for file in sorted(folder.glob("*.safetensors"))
            for name, tensor in read_header(file).items()
        }
    except (OSError, ValueError, struct.error) as error:
        raise ModelError(f"{folder}: its config or weights cannot be read ({error}).") from None
    config = config.get("text_config", config)
    linear = [t["shape"] for name, t in tensors.items() if _is_linear(name, t["shape"])]
    formats: Counter[str] = Counter()
    for tensor in tensors.values():
        formats[tensor["dtype"]] += prod(tensor["shape"])
    try:
        return ModelShape(
            parameters=sum(formats.values()),
            layers=config.get("num_hidden_layers") or config["n_layer"],
            hidden=config.get("hidden_size") or config["n_embd"],
            vocabulary=config["vocab_size"],
            context=config.get("max_position_embeddings") or config.get("n_positions") or 2048,
            linear_ends=sum(sum(shape) for shape in linear),
            linear_outputs=sum(shape[0] for shape in linear),
            dtype=formats.most_common(1)[0][0],
        )
    except (KeyError, IndexError) as error:
        raise ModelError(f"{folder}: is no causal language model ({error} is missing).") from None


def _is_linear(name: str, shape: list[int]) -> bool:
    outside = ("embed", "lm_head", "wte", "wpe")
    return len(shape) == 2 and not any(word in name for word in outside)


def estimate(
    shape: ModelShape,
    config: TrainingConfig,
    row: int,
    precision: str,
    device: str,
    method: Method,
    checkpointing: bool,
) -> MemoryEstimate:
    """Estimate the peak of one way to train, if the longest pair is a row of `row` tokens."""
    trained = shape.parameters
    if method == "lora":
        # An adapter of rank r on a map of [out, in] has r * (in + out) weights.
        trained = config.lora_rank * shape.linear_ends
    tokens = config.batch_size * row
    half = precision != "fp32"
    adapters_drop = method == "lora" and config.lora_dropout > 0
    kept = (_KEPT[method] + _KEPT_FOR_DROPOUT * adapters_drop) * shape.linear_outputs
    if checkpointing:
        # Each block's input is kept; one block at a time is computed again.
        kept = shape.layers * shape.hidden + kept / max(1, shape.layers)
    # One row after the other.
    tile = min(row, _TILE_TOKENS) * min(shape.vocabulary, _TILE_WORDS)
    frozen = shape.parameters if method == "lora" else 0
    fragments = _FRAGMENTS.get((device, method), 1.0)
    return MemoryEstimate(
        weights=_mb((frozen + trained) * (6 if half else 4)),
        gradients=_mb(trained * 4),
        optimizer=_mb(trained * 8),
        # In mixed precision the norms and the residual stream stay fp32: 3 bytes on average.
        activations=_mb(tokens * kept * (3 if half else 4) * fragments),
        logits=_mb(tile * 4 * _TILE_COPIES[device] * fragments),
        runtime=_RUNTIME_MB[device] + (_HOLES_MB.get((device, method), 0) if checkpointing else 0),
    )


def plan(
    shape: ModelShape, config: TrainingConfig, row: int, precision: str, device: str
) -> MemoryPlan:
    """Choose the first way that fits: as asked, then gradient checkpointing, then LoRA.

    Without `max_memory_mb` the run goes as asked. What a user set explicitly is not changed,
    except that LoRA may replace full training.

    Raises:
        ModelError: nothing fits; names the smallest estimate and what to change.
    """
    asked = config.gradient_checkpointing
    switches = [asked] if asked is not None else [False, True]
    methods: list[Method] = ["full", "lora"] if config.method == "full" else ["lora"]
    ways = [(method, switch) for method in methods for switch in switches]
    limit = config.max_memory_mb
    tried: list[tuple[int, str]] = []
    for method, switch in ways:
        need = estimate(shape, config, row, precision, device, method, switch)
        if limit is None or need.total <= limit:
            return MemoryPlan(
                method=method,
                gradient_checkpointing=switch,
                estimate=need,
                total_mb=need.total,
                limit_mb=limit,
                reason=_reason(config, tried, _way(method, switch), need, limit),
            )
        tried.append((need.total, _way(method, switch)))
    least, way = min(tried)
    raise ModelError(
        f"Training does not fit into max_memory_mb={limit}: the lightest way ({way}) is estimated "
        f"at {least} MB. Raise max_memory_mb to {least}, lower batch_size (is {config.batch_size}) "
        f"or max_length (longest pair: {row} tokens), or take a smaller model."
    )


def _way(method: Method, checkpointing: bool) -> str:
    return f"{method}{' with gradient checkpointing' if checkpointing else ''}"


def _reason(
    config: TrainingConfig,
    tried: list[tuple[int, str]],
    way: str,
    need: MemoryEstimate,
    limit: int | None,
) -> str:
    if limit is None:
        return f"{way}, estimated {need.total} MB; no max_memory_mb was set."
    refused = "".join(f"{name} needs {total} MB; " for total, name in tried)
    reason = f"{refused}{way} needs {need.total} MB of {limit} MB (estimates)."
    if config.method == "full" and way.startswith("lora"):
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


def _mb(count: float) -> int:
    return round(count / _MB)
