"""The supervised stage before DPO: train a model on the chosen answers, and on them alone.

A plain function of picklable arguments, like `ccai_core.dpo.train`, and with the same promises:
called again it returns what is finished, goes on from the newest good checkpoint, or starts.

    result = fine_tune(SftConfig(epochs=1), resolve_model("embedded"), pairs, out=Path("run"))
    train(TrainingConfig(), result.model, pairs, out=Path("run-dpo"))
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ccai_core import checkpoints, dpo, memory
from ccai_core.dpo import PreparedRun, training_precision
from ccai_core.errors import ConfigError
from ccai_core.models import Device, ModelRef, Precision, load_model, load_tokenizer
from ccai_core.prompts.leaks import refuse_held_out
from ccai_core.ranks import Ranks, joined
from ccai_core.sft_config import SftConfig, SftResult
from ccai_core.training_data import file_hash, fit, hold_out, read_pairs
from ccai_core.training_fit import until_it_fits
from ccai_core.training_log import TrainingLog, read_log
from ccai_core.training_output import RunFolder, tell
from ccai_core.types import fingerprint

if TYPE_CHECKING:
    from ccai_core.sft_trainer import Trainer

__all__ = ["SftConfig", "SftResult", "fine_tune"]


def fine_tune(
    config: SftConfig, model: ModelRef, pairs: Path, out: Path, device: str = "auto"
) -> SftResult:
    """Train `model` on the chosen answers of `pairs`; put everything into `out`.

    The pairs that are left out as too long and those that are held out are the ones that DPO, with
    the same `max_length` and `validation_fraction`, leaves out and holds out.

    Raises:
        ConfigError: no epochs are asked for, or another number of processes was started.
        DataError: the pairs cannot be used; raised before any weights are loaded.
        ModelError: the device or precision is not there, it does not fit, or training diverged.
        ArtifactError: `out` belongs to another run or process.
    """
    began = time.monotonic()
    if not config.epochs:
        raise ConfigError("sft.epochs is 0, which means no supervised stage. Set it to 1 or more.")
    asked = config.as_training()
    where = dpo._device(device)
    precision = training_precision(config.precision, where)
    settings = config.model_dump(exclude=dpo._NOT_INPUTS)
    inputs = {"stage": "sft", "model": model.identity, "pairs": file_hash(pairs), **settings}
    folder = RunFolder(out)
    with joined(where, deepspeed=asked.zero > 0) as ranks, ExitStack() as held:
        dpo._check_world(asked, ranks)
        say = tell if ranks.first else dpo._say_nothing

        def begin() -> SftResult | None:
            held.enter_context(folder.lock())
            return folder.finished_as(SftResult, inputs, say)

        if done := ranks.by_first(begin):
            say(f"Already fine-tuned: {done.model_path}")
            return done
        run = _prepare(config, model, pairs, folder, where, precision, inputs, ranks, say)
        if run.config.zero and not asked.zero:
            # The plan offloads what was not to be offloaded: DeepSpeed does that.
            held.enter_context(joined(where, deepspeed=True))
        ranks.by_first(lambda: folder.claim({**inputs, "planned_method": run.plan.method}))
        with dpo._within_limits(run):
            result = until_it_fits(run, lambda fitting: _train(fitting, began))
        # In a long-lived process the next thing to be loaded wants this memory.
        memory.give_back(where)
    say(f"Fine-tuned model: {result.model_path} ({result.model.identity})")
    return result


def _prepare(
    config: SftConfig,
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
    asked = config.as_training()
    plan = memory.plan(shape, asked, fitting.longest, precision, device)
    planned = memory.as_planned(asked, plan)
    say(
        f"{len(training)} chosen answers to train on, {len(validation)} held out, {fitting.cut} "
        f"pairs left out with more than {limit} tokens; {device}, {precision}."
    )
    say(f"Memory: {plan.reason}")
    return PreparedRun(
        config=planned,
        model=model,
        folder=RunFolder(folder.root, dpo._layout(planned)),
        device=device,
        precision=precision,
        inputs=inputs,
        shape=shape,
        plan=plan,
        tokenizer=tokenizer,
        train=training,
        validation=validation,
        cut=fitting.cut,
        limit=limit,
        longest=fitting.longest,
        ranks=ranks,
        tell=say,
    )


def _train(run: PreparedRun, began: float) -> SftResult:
    """Train to the end from the newest good checkpoint, or from the start."""
    from ccai_core import sft_trainer
    from ccai_core.training_progress import quiet
    from ccai_core.whole_model import whole_model

    newest = run.ranks.by_first(lambda: checkpoints.newest_valid(run.folder.checkpoints, run.tell))
    resumed = checkpoints.step_of(newest) if newest else None
    if newest:
        run.tell(f"Going on from {newest.name}.")
    # Before the weights: ZeRO-3 divides them while they are read.
    settings = sft_trainer.sft_settings(run, resuming=newest is not None)
    log = TrainingLog(run.folder.log, after_step=resumed) if run.ranks.first else dpo._Unwritten()
    progress = sft_trainer.SftProgress(
        log,
        run.config.keep_checkpoints, run.tell,
        resumed_from=resumed, model=run.model.identity, method=run.plan.method,
        device=run.device, precision=run.precision,
        pairs_train=len(run.train), pairs_validation=len(run.validation), pairs_cut=run.cut,
    )  # fmt: skip
    with quiet():
        # DeepSpeed takes its share to the device itself.
        device = "cpu" if run.config.zero else run.device
        weights, _ = load_model(run.model, cast(Device, device), "fp32")
        trainer = sft_trainer.build(run, weights, settings, progress)
        with progress.leaving:
            trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        # Wherever its weights are: in one process, or divided over many.
        whole = whole_model(run, trainer)
        return run.ranks.by_first(lambda: _finish(run, trainer, whole, resumed, began))


def _finish(
    run: PreparedRun, trainer: Trainer, whole: Any, resumed: int | None, began: float
) -> SftResult:
    """Save the model, draw the curve, and only then write the result and the log's end."""
    from ccai_core.sft_trainer import draw_curve
    from ccai_core.training_finish import _save

    peak = memory.peak_mb(run.device)
    saved = run.folder.save_model(f"{run.model.name}-sft", lambda target: _save(run, whole, target))
    draw_curve(read_log(run.folder.log), run.folder.curve)
    seconds = round(time.monotonic() - began, 1)
    result = _result(run, trainer, saved, resumed, peak, seconds)
    run.folder.finish(result)
    TrainingLog(run.folder.log, after_step=result.steps).write(
        "end", result.steps, result.steps, float(result.epochs),
        model=saved.identity, seconds=seconds, peak_memory_mb=peak,
    )  # fmt: skip
    return result


def _result(
    run: PreparedRun,
    trainer: Trainer,
    saved: ModelRef,
    resumed: int | None,
    peak: int,
    seconds: float,
) -> SftResult:
    from ccai_core.sft_trainer import measured
    from ccai_core.training_finish import _saved_dtype

    history, steps = trainer.state.log_history, int(trainer.state.global_step)
    found = measured(history, len(run.validation))
    return SftResult(
        model_path=saved.path,
        model=saved,
        base_model=run.model.identity,
        inputs=fingerprint(run.inputs),
        pairs_train=len(run.train),
        pairs_validation=len(run.validation),
        pairs_cut=run.cut,
        length_limit=run.limit,
        longest=run.longest,
        steps=steps,
        epochs=run.config.epochs,
        seconds=seconds,
        train_loss=[entry["loss"] for entry in history if "loss" in entry][-1],
        validation_before=found.get(0),
        validation_after=found.get(steps),
        device=run.device,
        precision=run.precision,
        batch_size=run.config.batch_size,
        saved_dtype=_saved_dtype(run),
        method=run.plan.method,
        memory=run.plan,
        resumed_from=resumed,
        peak_memory_mb=peak,
        seed=run.config.seed,
    )
