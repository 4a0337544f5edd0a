"""What a training run needs in memory: a model's size from its files, and the peak by its parts.

The parts are weights, gradients, AdamW's two moments, activations kept for the backward pass (a
row a pair, see pair_rows), and the tile of logits in which log-probabilities are computed. The
reference model costs nothing: its log-probabilities are computed before the first step. Constants
are measured on a 135M Llama on CPU (benchmarks/training_memory.py); those for CUDA and MPS are
derived (an H200 needed 14 to 31% less, docs/benchmarks.md), and so is what DeepSpeed divides and
offloads (Rajbhandari et al. 2020, arXiv 1910.02054; Ren et al. 2021, arXiv 2101.06840).

    need = estimate(read_shape(ref.path), config, row=250, precision="fp32", device="cpu")
"""

from __future__ import annotations

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
# Numbers in each of the buffers in which DeepSpeed sends gradients and weights: two are filled in
# turn, a third is gathered into.
_BUCKET, _BUCKETS = 50_000_000, 3
# Bytes a trained weight of its AdamW: a copy in fp32 and two moments.
_DEEPSPEED_STATES = 12


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
    """Estimated peak of one process in MB (2**20 bytes), by what takes it."""

    weights: int = Field(description="The model: fp32, plus half-precision copies.")
    gradients: int = Field(description="One number a trained weight.")
    optimizer: int = Field(description="AdamW's two moments of every trained weight.")
    activations: int = Field(description="Kept from the forward for the backward pass.")
    logits: int = Field(description="Workspace of the log-probabilities.")
    runtime: int = Field(description="Libraries, device context and DeepSpeed's buffers.")

    @property
    def total(self) -> int:
        """Everything together."""
        return sum(self.model_dump().values())


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
    shape: ModelShape, config: TrainingConfig, row: int, precision: str, device: str
) -> MemoryEstimate:
    """Estimate the peak of each process, if the longest pair is a row of `row` tokens.

    All that counts is read off the settings; without a word on gradient checkpointing there is
    none.
    """
    held = _divided(shape, config, precision) if config.zero else _whole(shape, config, precision)
    weights, gradients, optimizer, buffers = held
    half = precision != "fp32"
    method, checkpointing = config.method, bool(config.gradient_checkpointing)
    adapters_drop = method == "lora" and config.lora_dropout > 0
    kept = (_KEPT[method] + _KEPT_FOR_DROPOUT * adapters_drop) * shape.linear_outputs
    if checkpointing:
        # Each block's input is kept; one block at a time is computed again.
        kept = shape.layers * shape.hidden + kept / max(1, shape.layers)
    tokens = config.batch_size * row
    # One row after the other; on CUDA a batch's rows are one.
    together = tokens if device == "cuda" else row
    tile = min(together, _TILE_TOKENS) * min(shape.vocabulary, _TILE_WORDS)
    fragments = _FRAGMENTS.get((device, method), 1.0)
    holes = _HOLES_MB.get((device, method), 0) if checkpointing else 0
    return MemoryEstimate(
        weights=_mb(weights),
        gradients=_mb(gradients),
        optimizer=_mb(optimizer),
        # In mixed precision the norms and the residual stream stay fp32: 3 bytes on average.
        activations=_mb(tokens * kept * (3 if half else 4) * fragments),
        logits=_mb(tile * 4 * _TILE_COPIES[device] * fragments),
        runtime=_RUNTIME_MB[device] + holes + _mb(buffers),
    )


def host_mb(shape: ModelShape, config: TrainingConfig, precision: str) -> int:
    """Estimate what one process offloads to the host's memory, in MB; 0 if nothing."""
    if config.offload == "none":
        return 0
    each = 2 if precision != "fp32" else 4
    # The states, gradients in fp32, and the new weights on their way back.
    numbers = _trained(shape, config) * (_DEEPSPEED_STATES + 4 + each)
    if config.offload == "all":
        numbers += shape.parameters * each
    return _mb(numbers / config.world)


def _trained(shape: ModelShape, config: TrainingConfig) -> int:
    # An adapter of rank r on a map of [out, in] has r * (in + out) weights.
    return config.lora_rank * shape.linear_ends if config.method == "lora" else shape.parameters


def _held(shape: ModelShape, config: TrainingConfig) -> int:
    """Count a model's weights, adapters included."""
    return shape.parameters + (_trained(shape, config) if config.method == "lora" else 0)


def _whole(
    shape: ModelShape, config: TrainingConfig, precision: str
) -> tuple[float, float, float, float]:
    """Return bytes of weights, gradients, optimizer and buffers where each process holds all."""
    trained = _trained(shape, config)
    if precision == "fp32":
        weights = _held(shape, config) * 4
    elif config.method == "full":
        weights = _held(shape, config) * 6
    else:
        # Of what adapters leave as it is, only the embedding is kept in fp32.
        weights = shape.parameters * 2 + shape.vocabulary * shape.hidden * 2 + trained * 6
    # Plain data parallelism sends gradients from buckets that are as large as all of them.
    return weights, trained * 4, trained * 8, trained * 4 * (config.world > 1)


def _divided(
    shape: ModelShape, config: TrainingConfig, precision: str
) -> tuple[float, float, float, float]:
    """Return the same where DeepSpeed divides the optimizer (1), gradients (2), weights (3)."""
    each, parts = (2 if precision != "fp32" else 4), config.world
    trained, held = _trained(shape, config), _held(shape, config)
    weights = float(held * each)
    if config.zero == 3:
        weights = 0.0 if config.offload == "all" else weights / parts
        weights += _gathered(shape) * each
    gradients = trained * each / (parts if config.zero >= 2 else 1)
    optimizer = trained * _DEEPSPEED_STATES / parts
    if config.offload != "none":
        optimizer = 0.0
        # From stage 2 on gradients leave as soon as they are summed over the processes.
        gradients = 0.0 if config.zero >= 2 else gradients
    return weights, gradients, optimizer, _BUCKETS * _BUCKET * each


def _gathered(shape: ModelShape) -> float:
    """Count the weights that ZeRO-3 has put together at one time: a block's, or the vocabulary's.

    The next block is on its way meanwhile.
    """
    words = shape.vocabulary * shape.hidden
    block = max(0, shape.parameters - words) / max(1, shape.layers)
    return min(shape.parameters, max(words, block) + block)


def _mb(count: float) -> int:
    return round(count / _MB)
