"""TRL's DPOTrainer as this project runs it: no padding, a kept reference, no NaN, no telemetry.

The loss is TRL's own; what differs is where its log-probabilities come from. Those of the policy
are computed from rows (`ccai_core.pair_rows`), those of the reference once for ever
(`ccai_core.reference`).

    trainer = Trainer(reference=ReferenceCache(root, identity), progress=Progress(...), model=...)
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import datasets
import numpy as np
from trl import DPOTrainer
from trl.models.utils import prepare_deepspeed
from trl.trainer import dpo_trainer

from ccai_core.guarded_trainer import GuardedTrainer
from ccai_core.pair_rows import ReadsRows
from ccai_core.ranks import this_rank
from ccai_core.reference import Both, ReferenceCache, pair_key
from ccai_core.training_progress import Progress

_REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
# Never read: every pair is known once all processes have computed their share.
_UNKNOWN = (math.nan, math.nan)
_TELL_S = 10.0
# Known numbers may differ by rounding: another machine, another number of threads.
_ROUNDING = 1e-3


class Trainer(GuardedTrainer, DPOTrainer):  # type: ignore[misc]
    """DPOTrainer without padding, that keeps the reference's log-probabilities."""

    def __init__(
        self,
        *args: Any,
        reference: ReferenceCache,
        progress: Progress,
        simpo_gamma: float | None = None,
        **kwargs: Any,
    ) -> None:
        # Before TRL's own: it asks for the reference's log-probabilities in there.
        self._reference, self._progress, self._simpo_gamma = reference, progress, simpo_gamma
        self._engine: Any = None
        self._ranks = this_rank()
        with _nothing_hashed():
            super().__init__(*args, **kwargs)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        padded, read = _rows(model, inputs)
        return super()._compute_loss(read, padded, return_outputs)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        """Return the reference's log-probabilities of a batch: (chosen, rejected), in nats."""
        padded, read = _rows(model, inputs)
        return super().compute_ref_log_probs(read, padded)

    def _precompute_ref_logps(
        self, dataset: datasets.Dataset, name: str, batch_size: int
    ) -> datasets.Dataset:
        """Add the columns that TRL reads, from what is known and what is computed now."""
        if self._simpo_gamma is not None:
            return _with_reference(dataset, _simpo(dataset, self._simpo_gamma))
        keys = [pair_key(*ids) for ids in _tokens(dataset)]
        # On a network's disk each process sees the files of the others when it sees them.
        self._reference.take(self._ranks.by_first(self._reference.entries))
        known = self._check_reference(dataset, keys)
        if missing := [i for i, key in enumerate(keys) if self._reference.get(key) is None]:
            self._compute_reference(dataset, keys, missing)
        elif known:
            self._progress.tell(f"Reference: all {len(keys)} {name} pairs were known.")
        return _with_reference(dataset, [self._reference.get(key) or _UNKNOWN for key in keys])

    def _check_reference(self, dataset: datasets.Dataset, keys: list[str]) -> int:
        """Compute two of the known pairs again; forget all if they are not as they were."""
        known = [i for i, key in enumerate(keys) if self._reference.get(key) is not None]
        for i in {*known[:1], *known[-1:]}:
            then, (now,) = self._reference.get(keys[i]), self._reference_of(dataset, [i])
            if not np.allclose(then or now, now, rtol=_ROUNDING, atol=_ROUNDING):
                self._progress.tell(
                    f"Warning: the reference log-probabilities in {self._reference.folder} are not "
                    "this model's; they are computed again."
                )
                self._ranks.by_first(self._reference.forget)
                self._reference.forget()
                return 0
        return len(known)

    def _compute_reference(
        self, dataset: datasets.Dataset, keys: list[str], missing: list[int]
    ) -> None:
        """Compute this process's share of the missing pairs, each kept as soon as it is there."""
        world, rank = self._ranks.world, self._ranks.rank
        # The same number in every process, or they would wait for each other for ever (ZeRO-3).
        share = [missing[i % len(missing)] for i in range(rank, _up(len(missing), world), world)]
        size = self.args.per_device_train_batch_size
        began = told = time.monotonic()
        for at in range(0, len(share), size):
            batch = share[at : at + size]
            for i, both in zip(batch, self._reference_of(dataset, batch), strict=True):
                self._reference.add(keys[i], *both)
            now, done = time.monotonic(), at + len(batch)
            if rank == 0 and (now - told >= _TELL_S or done == len(share)):
                told = now
                self._progress.reference(done, len(share), now - began)
        known = self._reference.entries()
        for entries in self._ranks.gather({keys[i]: known[keys[i]] for i in share}):
            self._reference.take(entries)

    def _reference_of(self, dataset: datasets.Dataset, pairs: Sequence[int]) -> list[Both]:
        batch = self._prepare_inputs(self.data_collator([dataset[i] for i in pairs]))
        sides = self.compute_ref_log_probs(self._reference_model(), batch)
        return list(zip(*(side.tolist() for side in sides), strict=True))

    def _reference_model(self) -> Any:
        """Return what computes the reference: the model as it is before its first step."""
        if self.is_deepspeed_enabled and self._engine is None:
            # Rounds weights as in training, and gathers those that ZeRO-3 has divided; one does for
            # all sets.
            self._engine = prepare_deepspeed(self.model, self.accelerator)
        return self._engine or self.model


@contextmanager
def _nothing_hashed() -> Iterator[None]:
    """Keep TRL from hashing all weights, a minute for 7B, for a cache that is not used here."""
    with patch.object(dpo_trainer, "hash_module", lambda _: ""):
        yield


def _with_reference(dataset: datasets.Dataset, both: list[Both]) -> datasets.Dataset:
    for name, values in zip(_REFERENCE_COLUMNS, zip(*both, strict=True), strict=True):
        dataset = dataset.add_column(name, np.array(values, dtype=np.float32))
    return dataset


def _simpo(dataset: datasets.Dataset, gamma: float) -> list[Both]:
    """Return what makes TRL's length-normalised loss that of SimPO, which has no reference.

    -log sigmoid(beta * (log p(chosen) / |chosen| - log p(rejected) / |rejected| - gamma)), equation
    6 of Meng et al. 2024 (arXiv 2405.14734) with gamma over beta: the margin stands where the
    reference's log-probability of the chosen answer would.
    """
    return [(gamma * len(chosen), 0.0) for _, chosen, _ in _tokens(dataset)]


def _rows(model: Any, inputs: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return the batch without its rows, and what answers for the model in TRL's loss."""
    padded = {name: value for name, value in inputs.items() if name != "rows"}
    return padded, ReadsRows(model, inputs["rows"]) if "rows" in inputs else model


def _tokens(dataset: datasets.Dataset) -> Iterator[tuple[list[int], list[int], list[int]]]:
    for each in dataset.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"]):
        yield each["prompt_ids"], each["chosen_ids"], each["rejected_ids"]


def _up(count: int, multiple: int) -> int:
    return math.ceil(count / multiple) * multiple
