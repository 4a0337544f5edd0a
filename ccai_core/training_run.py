"""One training run of any kind: prepared before weights are loaded, held to its limits, done once.

    start = Start(config, model, pairs, RunFolder(out), "cpu", "fp32", inputs, TrainingResult)
    result = carry_out(start, attempt=lambda run: ...)

`ccai_core.dpo` and `ccai_core.sft` are what is carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, get_args

from ccai_core import deepspeed_build, memory
from ccai_core.config import Config
from ccai_core.errors import ArtifactError, ConfigError, ModelError
from ccai_core.models import Device, ModelRef, Precision, load_tokenizer, pick_device
from ccai_core.prompts.leaks import refuse_held_out
from ccai_core.ranks import Ranks, joined
from ccai_core.training_config import LAYOUT, TrainedModel, TrainingConfig
from ccai_core.training_data import Fitting, file_hash, fit, hold_out, read_pairs
from ccai_core.training_fit import until_it_fits
from ccai_core.training_log import TrainingLog, Unwritten
from ccai_core.training_output import RunFolder, is_disk_full, tell
from ccai_core.types import PreferencePair

R = TypeVar("R", bound=TrainedModel)

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

    def open_log(self, after_step: int | None) -> TrainingLog:
        """Open the log, keeping what is in it up to a step; there is one, the first process's."""
        path = self.folder.log
        return TrainingLog(path, after_step) if self.ranks.first else Unwritten(path)

    def about(self) -> dict[str, Any]:
        """Return what the log's first line says of the run."""
        return {
            "model": self.model.identity,
            "method": self.plan.method,
            "device": self.device,
            "precision": self.precision,
            "pairs_train": len(self.train),
            "pairs_validation": len(self.validation),
            "pairs_cut": self.cut,
        }


@dataclass(frozen=True)
class Start(Generic[R]):
    """What a training run is asked for."""

    config: TrainingConfig
    model: ModelRef
    pairs: Path
    folder: RunFolder
    device: str
    precision: Precision
    inputs: dict[str, Any]
    """All that determines the result, by content; see `inputs_of`."""
    result: type[R]
    words: tuple[str, str] = ("trained", "pairs")
    """What is done to the model, and to what it is done."""
    longest: Callable[[Fitting], int] = lambda fitting: fitting.longest_row
    """Tokens of the longest row that training puts through the model."""


def inputs_of(config: Config, model: ModelRef, pairs: Path) -> dict[str, Any]:
    """Return all that determines a training's result: model, data and settings, by content."""
    settings = config.model_dump(exclude=_NOT_INPUTS)
    return {"model": model.identity, "pairs": file_hash(pairs), **settings}


def carry_out(start: Start[R], attempt: Callable[[PreparedRun], R]) -> R:
    """Return what is finished; else have `attempt` train, with less at once if memory runs out.

    Raises:
        ConfigError: another number of processes was started than is asked for.
        DataError: the pairs cannot be used; raised before any weights are loaded.
        ModelError: it does not fit, or training diverged.
        ArtifactError: the folder belongs to another run or process.
    """
    config, folder, where, done = start.config, start.folder, start.device, start.words[0]
    with joined(where, deepspeed=config.zero > 0) as ranks, ExitStack() as held:
        _check_world(config, ranks)
        say = tell if ranks.first else _say_nothing

        def begin() -> R | None:
            held.enter_context(folder.lock())
            return folder.finished(start.result, start.inputs, say)

        if finished := ranks.by_first(begin):
            say(f"Already {done}: {finished.model_path}")
            return finished
        run = _prepare(start, ranks, say)
        if run.config.zero and not config.zero:
            # The plan offloads what was not to be offloaded: DeepSpeed does that.
            held.enter_context(joined(where, deepspeed=True))
        if run.config.offload != "none":
            deepspeed_build.build(deepspeed_build.OPTIMIZER)
        # Less memory may have made LoRA of full training, which cannot go on from its checkpoints.
        ranks.by_first(lambda: folder.claim({**start.inputs, "planned_method": run.plan.method}))
        with _within_limits(run):
            result = until_it_fits(run, attempt)
        # In a long-lived process the next thing to be loaded wants this memory.
        memory.give_back(where)
    say(f"{done.capitalize()} model: {result.model_path} ({result.model.identity})")
    return result


def _prepare(start: Start[Any], ranks: Ranks, say: Callable[[str], None]) -> PreparedRun:
    """Check the pairs, divide them and plan the memory; loads a tokenizer but no weights."""
    config, model, device, precision = start.config, start.model, start.device, start.precision
    everything = read_pairs(start.pairs)
    refuse_held_out(everything)
    shape = memory.read_shape(model.path)
    tokenizer = load_tokenizer(model)
    limit = min(config.max_length, shape.context)
    fitting = fit(everything, tokenizer, limit, config.over_length)
    training, validation = hold_out(fitting.pairs, config.validation_fraction)
    plan = memory.plan(shape, config, start.longest(fitting), precision, device)
    together = f", {ranks.world} processes" if ranks.world > 1 else ""
    say(
        f"{len(training)} {start.words[1]} to train on, {len(validation)} held out, {fitting.cut} "
        f"pairs left out with more than {limit} tokens; {device}, {precision}{together}."
    )
    say(f"Memory: {plan.reason}")
    # How it is divided may be the plan's doing, and checkpoints depend on it.
    planned = memory.as_planned(config, plan)
    folder = RunFolder(start.folder.root, layout_of(planned))
    return PreparedRun(
        planned, model, folder, device, precision, start.inputs, shape, plan, tokenizer, training,
        validation, fitting.cut, limit, fitting.longest, ranks, say,
    )  # fmt: skip


def _say_nothing(line: str) -> None:
    """Leave it to the first process to speak."""


def layout_of(config: TrainingConfig) -> str:
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


def device_of(name: str) -> str:
    """Return the device that a setting's value means here.

    Raises:
        ModelError: there is no such device, or it is not a device's name.
    """
    if name not in get_args(Device):
        raise ModelError(f"device {name!r} is unknown. Valid: {', '.join(get_args(Device))}.")
    return pick_device(cast(Device, name))


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
