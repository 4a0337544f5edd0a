"""How fast a model is trained: what it reads in a second, and how much of the device that uses.

A meter counts what the model is really given: the prompt of a pair once where it stands in a row,
padding where there is some. Model FLOPs utilisation (MFU) is that of appendix B of Chowdhery et al.
2022 (PaLM, arXiv 2204.02311): operations that the model needs for what was read, over what the
device could have done in that time. For every weight of a linear map and token these are 2 for the
forward pass, 2 for the gradient of its input and, if the weight is trained, 2 for its own: 6N a
token in full training, about 4N with adapters. Attention adds 12 x layers x width x T, T being the
length that a token sees; the output layer counts where an answer's token is predicted. What is
computed twice (gradient checkpointing) or for padding is no use, and not counted.

    meter = Meter(model)
    meter.go(); train(); meter.stop()
    read, seconds = meter.take()
    mfu = work_of(model).flops(read) / seconds / ceiling("cuda", "bf16").flops
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

# Dense tensor-core operations a second with bf16 or fp16 inputs, without sparsity: the data sheets.
_DATA_SHEETS = {
    r"B200": 2250e12,
    r"GH200|H200|H800": 989e12,
    r"H100 PCIe": 756e12,
    r"H100 NVL": 835e12,
    r"H100": 989e12,
    r"A100|A800": 312e12,
    r"L40S": 362e12,
    r"L4": 121e12,
    r"A40": 150e12,
    r"A30": 165e12,
    r"A10": 125e12,
    r"V100": 125e12,
    r"T4": 65e12,
}
# Side of the square matrices whose product is timed, and for how long it is repeated.
_SIDE = {"cuda": 8192, "mps": 2048, "cpu": 512}
_MEASURE_S = 0.05


@dataclass(frozen=True)
class Read:
    """What a model was given."""

    pairs: float = 0.0
    """Preference pairs; of another trainer's batches, half the sequences."""
    tokens: float = 0.0
    """Tokens, padding left out."""
    places: float = 0.0
    """Tokens and padding."""
    answers: float = 0.0
    """Tokens of answers, which are predicted."""
    seen: float = 0.0
    """Sum over the tokens of the length of what each sees."""

    def __add__(self, other: Read) -> Read:
        """Return both together; numbers still on the device stay there."""
        return Read(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    @property
    def padding(self) -> float:
        """Share of what was computed that was padding."""
        return 1 - self.tokens / self.places if self.places else 0.0


class Meter:
    """Counts what a model reads in training and in evaluation, and times the training."""

    def __init__(self, model: Any) -> None:
        self._read = {True: Read(), False: Read()}
        self._seconds = 0.0
        self._since: float | None = None
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def go(self) -> None:
        """Let the clock run from now on."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock: what follows is no training."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
        self._since = None

    def take(self, training: bool = True) -> tuple[Read, float]:
        """Return what was read since the last call, and the seconds of training that took."""
        read, self._read[training] = self._read[training], Read()
        seconds = 0.0
        if training:
            running = self._since is not None
            self.stop()
            seconds, self._seconds = self._seconds, 0.0
            if running:
                self.go()
        return Read(*(float(number) for number in astuple(read))), seconds

    def _count(self, model: Any, _: Any, given: dict[str, Any]) -> None:
        found = _rows(given["rows"]) if given.get("rows") is not None else _padded(given)
        self._read[model.training] += found


def _rows(rows: Sequence[dict[str, Any]]) -> Read:
    """Count pairs that are a row each; from shapes alone, which asks nothing of the device."""
    total = Read()
    for row in rows:
        tokens, answers = row["input_ids"].shape[-1], row["targets"].shape[-1]
        # The row has the prompt's last token twice. Both answers taken as equally long: T is the
        # prompt and one of them.
        seen = tokens * (tokens - 1 - answers / 2)
        total += Read(1.0, tokens, tokens, answers, seen)
    return total


def _padded(given: dict[str, Any]) -> Read:
    ids = given.get("input_ids")
    if ids is None:
        return Read()
    mask, labels = given.get("attention_mask"), given.get("labels")
    lengths = mask.sum(1) if mask is not None else ids.new_full((len(ids),), ids.shape[1])
    answers = (labels[:, 1:] != -100).sum() if labels is not None else 0.0
    # Added up on the device, and read once an entry of the log.
    return Read(len(ids) / 2, lengths.sum(), ids.numel(), answers, (lengths * lengths).sum())


@dataclass(frozen=True)
class Work:
    """What one token costs a model, in weights."""

    body: int
    """Weights of all but the embedding and the output layer."""
    body_trained: int
    head: int
    """Weights of the output layer."""
    head_trained: int
    attention: int
    """Layers times the width of all heads together."""

    def flops(self, read: Read) -> float:
        """Return the operations that reading and learning needs."""
        body = (4 * self.body + 2 * self.body_trained) * read.tokens
        head = (4 * self.head + 2 * self.head_trained) * read.answers
        return body + head + 12 * self.attention * read.seen


def work_of(model: Any) -> Work:
    """Look at a model's weights and their training; also at one divided by ZeRO-3."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    ends = {id(layer.weight) for layer in (head, embedding) if layer is not None}
    body = [weight for weight in model.parameters() if id(weight) not in ends]
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    last = [head.weight] if head is not None else []
    return Work(
        body=_size(body),
        body_trained=_size([weight for weight in body if weight.requires_grad]),
        head=_size(last),
        head_trained=_size([weight for weight in last if weight.requires_grad]),
        attention=config.num_hidden_layers * width,
    )


def _size(weights: Sequence[Any]) -> int:
    return sum(int(getattr(weight, "ds_numel", weight.numel())) for weight in weights)


class Ceiling(NamedTuple):
    """What a device can do at most."""

    flops: float
    """Operations a second."""
    source: str
    """data sheet, or measured."""


@functools.cache
def ceiling(device: str, precision: str) -> Ceiling:
    """Return the most that this device does: by its data sheet, or else by a matrix product.

    A part of a GPU (MIG), a GPU of another name, a CPU and fp32 are measured: some hundredths of a
    second, once a process.
    """
    if device == "cuda" and precision != "fp32":
        import torch

        known = data_sheet(torch.cuda.get_device_name())
        if known is not None:
            return Ceiling(known, "data sheet")
    return Ceiling(measured_ceiling(device, precision), "measured")


def data_sheet(name: str) -> float | None:
    """Return what a GPU of this name does by its data sheet; None if it is not known."""
    if "MIG" in name:
        return None
    for words, flops in _DATA_SHEETS.items():
        if re.search(rf"\b({words})\b", name):
            return flops
    return None


def measured_ceiling(device: str, precision: str) -> float:
    """Return the operations a second that a large matrix product reaches on this device."""
    import torch

    side = _SIDE[device]
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    # A generator of its own: the training's must not notice.
    dice = torch.Generator(device=device).manual_seed(0)
    kind = kinds.get(precision, torch.float32)
    matrix = torch.rand(side, side, device=device, generator=dice).to(kind)
    best, began = 0.0, time.perf_counter()
    while time.perf_counter() - began < _MEASURE_S or not best:
        at = time.perf_counter()
        matrix @ matrix
        if device != "cpu":
            torch.accelerator.synchronize()
        best = max(best, 2 * side**3 / (time.perf_counter() - at))
    return best
