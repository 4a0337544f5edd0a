"""Train a model on preference pairs by DPO: planned to fit the memory, resumable, reproducible.

`train` is a plain function of picklable arguments that reads and writes files and prints its
progress, so it is the same in this process, in a subprocess and as a job on a cluster. Called again
it returns what is finished, goes on from the newest good checkpoint, or starts.

    result = train(TrainingConfig(epochs=1), resolve_model("embedded"), pairs, out=Path("run"))
    print(result.validation_before.margin, "->", result.validation_after.margin)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from ccai_core import checkpoints, memory
from ccai_core.errors import ArtifactError, ConfigError, ModelError
from ccai_core.models import Device, ModelRef, Precision, load_model, load_tokenizer, pick_device
from ccai_core.prompts.leaks import refuse_held_out
from ccai_core.ranks import Ranks, joined
from ccai_core.reference import ReferenceCache
from ccai_core.training_config import (
    LAYOUT,
    TrainingConfig,
    TrainingResult,
    Validation,
    estimate_steps,
)
from ccai_core.training_data import file_hash, fit, hold_out, read_pairs
from ccai_core.training_fit import until_it_fits
from ccai_core.training_log import TrainingLog
from ccai_core.training_output import RunFolder, is_disk_full, tell
from ccai_core.training_reporters import check_reporters
from ccai_core.types import PreferencePair

__all__ = ["TrainingConfig", "TrainingResult", "Validation", "estimate_steps", "train"]

# How often a run is saved, how it is made to fit and who computes it does not change what it is.
_NOT_INPUTS = {
    "save_steps",
    "keep_checkpoints",
    "log_steps",
    "max_memory_mb",
    "gradient_checkpointing",
    *LAYOUT,
}


@dataclass(frozen=True)
class PreparedRun:
    """Everything known before any weights are loaded."""

    config: TrainingConfig
    model: ModelRef
    folder: RunFolder
    device: str
    precision: Precision
    inputs: dict[str, Any]
    shape: memory.ModelShape
    plan: memory.MemoryPlan
    tokenizer: Any
    train: list[PreferencePair]
    validation: list[PreferencePair]
    cut: int
    limit: int
    longest: int
    ranks: Ranks
    tell: Callable[[str], None]


def train(
    config: TrainingConfig,
    model: ModelRef,
    pairs: Path,
    out: Path,
    device: str = "auto",
    reference: Path | None = None,
) -> TrainingResult:
    """Train `model` on `pairs`, a data set's folder or a file; put everything into `out`.

    `reference` is where log-probabilities of reference models are kept; runs that are told the same
    folder share them. Unset: within `out`.

    Raises:
        DataError: the pairs cannot be used; raised before any weights are loaded.
        ModelError: the device or precision is not there, it does not fit, or training diverged.
        ArtifactError: `out` belongs to another run or process.
    """
    began = time.monotonic()
    check_reporters(config.report_to)
    where = _device(device)
    precision = training_precision(config.precision, where)
    inputs = _inputs(config, model, pairs)
    folder = RunFolder(out, _layout(config))
    with joined(where, deepspeed=config.zero > 0) as ranks, ExitStack() as held:
        _check_world(config, ranks)
        say = tell if ranks.first else _say_nothing

        def begin() -> TrainingResult | None:
            held.enter_context(folder.lock())
            return folder.finished(inputs, say)

        if done := ranks.by_first(begin):
            say(f"Already trained: {done.model_path}")
            return done
        run = _prepare(config, model, pairs, folder, where, precision, inputs, ranks, say)
        if run.config.zero and not config.zero:
            # The plan offloads what was not to be offloaded: DeepSpeed does that.
            held.enter_context(joined(where, deepspeed=True))
        # Less memory may have made LoRA of full training, which cannot go on from its checkpoints.
        ranks.by_first(lambda: folder.claim({**inputs, "planned_method": run.plan.method}))
        with _within_limits(run):
            kept = reference or folder.root / "reference"
            result = until_it_fits(run, lambda fitting: _train(fitting, began, kept))
        # In a long-lived process the next thing to be loaded wants this memory.
        memory.give_back(where)
    say(f"Trained model: {result.model_path} ({result.model.identity})")
    return result


def _say_nothing(line: str) -> None:
    """Leave it to the first process to speak."""


def _layout(config: TrainingConfig) -> str:
    """Return what checkpoints depend on beyond the inputs: they hold each process's part."""
    if config.world == 1 and not config.zero:
        return ""
    return f"{f'zero{config.zero}' if config.zero else 'ddp'}-{config.world}"


def _check_world(config: TrainingConfig, ranks: Ranks) -> None:
    if config.world != ranks.world:
        raise ConfigError(
            f"Training is set to nodes {config.nodes} x ranks {config.ranks} = {config.world} "
            f"processes, and {ranks.world} were started. Set them to how many the job has."
        )


def training_precision(precision: Precision, device: str) -> Precision:
    """Return the arithmetic of the steps: bf16 or fp16 on CUDA, fp16 on MPS, fp32 on CPU.

    Weights are always kept and updated in fp32; in bf16 most of DPO's updates would round away.

    Raises:
        ModelError: the device cannot, or should not, train in the named precision.
    """
    import torch

    bf16_here = device == "cuda" and torch.cuda.is_bf16_supported()
    if precision == "auto":
        if device == "cuda":
            return "bf16" if bf16_here else "fp16"
        return "fp16" if device == "mps" else "fp32"
    if device == "cpu" and precision != "fp32":
        raise ModelError(
            f"precision {precision} is not used for training on CPU: there it hardly learns, and "
            "overstates the margins it reports several times. Take fp32 or auto."
        )
    if precision == "bf16" and not bf16_here:
        raise ModelError(f"precision bf16: this {device} device cannot do it. Take auto or fp16.")
    return precision


def _device(name: str) -> str:
    if name not in get_args(Device):
        raise ModelError(f"device {name!r} is unknown. Valid: {', '.join(get_args(Device))}.")
    return pick_device(cast(Device, name))


def _inputs(config: TrainingConfig, model: ModelRef, pairs: Path) -> dict[str, Any]:
    """Return all that determines the result: model, data and settings, by content."""
    settings = config.model_dump(exclude=_NOT_INPUTS)
    return {"model": model.identity, "pairs": file_hash(pairs), **settings}


def _prepare(
    config: TrainingConfig,
    model: ModelRef,
    pairs: Path,
    folder: RunFolder,
    device: str,
    precision: Precision,
    inputs: dict[str, Any],
    ranks: Ranks,
    say: Callable[[str], None],
) -> PreparedRun:
    """Check the pairs, divide them and plan the memory; loads a tokenizer but no weights."""
    everything = read_pairs(pairs)
    refuse_held_out(everything)
    shape = memory.read_shape(model.path)
    tokenizer = load_tokenizer(model)
    limit = min(config.max_length, shape.context)
    fitting = fit(everything, tokenizer, limit, config.over_length)
    training, validation = hold_out(fitting.pairs, config.validation_fraction)
    plan = memory.plan(shape, config, fitting.longest_row, precision, device)
    together = f", {ranks.world} processes" if ranks.world > 1 else ""
    say(
        f"{len(training)} pairs to train on, {len(validation)} held out, {fitting.cut} left out "
        f"with more than {limit} tokens; {device}, {precision}{together}."
    )
    say(f"Memory: {plan.reason}")
    # How it is divided may be the plan's doing, and checkpoints depend on it.
    planned = memory.as_planned(config, plan)
    folder = RunFolder(folder.root, _layout(planned))
    return PreparedRun(
        planned, model, folder, device, precision, inputs, shape, plan, tokenizer, training,
        validation, fitting.cut, limit, fitting.longest, ranks, say,
    )  # fmt: skip


@contextmanager
def _within_limits(run: PreparedRun) -> Iterator[None]:
    """Hold CUDA to max_memory_mb, and turn running out of memory or disk into advice."""
    import torch
    from safetensors import SafetensorError

    if run.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        if run.plan.limit_mb is not None:
            whole = torch.cuda.get_device_properties(0).total_memory / 2**20
            torch.cuda.set_per_process_memory_fraction(min(1.0, run.plan.limit_mb / whole))
    try:
        yield
    except (RuntimeError, OSError, SafetensorError) as error:
        if memory.is_out_of_memory(error):
            raise ModelError(
                f"Memory ran out; the estimate was {run.plan.total_mb} MB. Set max_memory_mb to "
                "what there is, lower batch_size (and raise gradient_accumulation) or max_length."
            ) from error
        if is_disk_full(error):
            raise ArtifactError(
                f"{run.folder.root}: the disk is full or over its quota. Free some space (full "
                "training's checkpoints are three times the model) or lower keep_checkpoints; "
                "started again it goes on from the last good checkpoint."
            ) from error
        raise


def _train(run: PreparedRun, began: float, kept: Path) -> TrainingResult:
    """Train to the end from the newest good checkpoint, or from the start."""
    from ccai_core import dpo_trainer
    from ccai_core.training_finish import choose, finish
    from ccai_core.training_progress import Progress, quiet
    from ccai_core.whole_model import whole_model

    newest = run.ranks.by_first(lambda: checkpoints.newest_valid(run.folder.checkpoints, run.tell))
    resumed_from = checkpoints.step_of(newest) if newest else None
    if newest:
        run.tell(f"Going on from {newest.name}.")
    # Before the weights: ZeRO-3 divides them while they are read.
    settings = dpo_trainer.dpo_settings(
        run.config, run.plan, run.folder.checkpoints, run.device, run.precision,
        len(run.train), bool(run.validation), newest is not None,
    )  # fmt: skip
    log = TrainingLog(run.folder.log, after_step=resumed_from) if run.ranks.first else _Unwritten()
    progress = Progress(
        log,
        run.config.keep_checkpoints, run.tell,
        patience=run.config.patience, keep_best=run.config.select == "best",
        measure=run.config.measure, has_reference=run.config.loss != "simpo",
        resumed_from=resumed_from, model=run.model.identity, method=run.plan.method,
        device=run.device, precision=run.precision,
        pairs_train=len(run.train), pairs_validation=len(run.validation), pairs_cut=run.cut,
    )  # fmt: skip
    with quiet():
        # DeepSpeed takes its share to the device itself.
        device = "cpu" if run.config.zero else run.device
        weights, _ = load_model(run.model, cast(Device, device), "fp32")
        trainer = dpo_trainer.build(
            run.config, run.plan, weights, run.tokenizer, run.train, run.validation,
            settings, progress, ReferenceCache(kept, _reference_identity(run)),
        )  # fmt: skip
        with progress.leaving:
            trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        step = choose(run, trainer)
        whole = whole_model(run, trainer)
        return run.ranks.by_first(lambda: finish(run, trainer, whole, step, resumed_from, began))


class _Unwritten(TrainingLog):
    """The log of a process that is not the first: there is one log."""

    def __init__(self) -> None:
        """Open nothing."""

    def write(self, *_: Any, **__: Any) -> None:
        """Write nothing."""


def _reference_identity(run: PreparedRun) -> dict[str, Any]:
    """Return everything but the tokens that reference log-probabilities depend on."""
    identity = {
        "model": run.model.identity,
        "device": run.device,
        "precision": run.precision,
        "length_desensitised": run.config.length_desensitised,
    }
    if run.config.zero and run.precision != "fp32":
        # DeepSpeed computes with rounded weights, not only with rounded activations.
        identity["weights"] = run.precision
    return identity
