"""The end of a training run: which weights become the model, and what is said of them.

step = choose(run, trainer)                       # in every process
result = finish(run, trainer, whole_model(run, trainer), step, resumed_from=None, began=began)
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccai_core import memory
from ccai_core.errors import ModelError
from ccai_core.models import ModelRef
from ccai_core.training_config import TrainingResult
from ccai_core.training_curve import draw
from ccai_core.training_log import TrainingLog, read_log
from ccai_core.training_output import tell
from ccai_core.training_progress import evaluated, validations
from ccai_core.training_watch import verdict
from ccai_core.types import fingerprint

if TYPE_CHECKING:
    from ccai_core.dpo import PreparedRun
    from ccai_core.pair_trainer import Trainer

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def choose(run: PreparedRun, trainer: Trainer) -> int:
    """Put the weights that become the model into the trainer; return their step."""
    return _take_best(run, trainer) if run.config.select == "best" else trainer.state.global_step


def finish(
    run: PreparedRun,
    trainer: Trainer,
    whole: Any,
    step: int,
    resumed_from: int | None,
    began: float,
) -> TrainingResult:
    """Save the model, draw the curve, and only then write the result and the log's end."""
    peak = memory.peak_mb(run.device)
    name = f"{run.model.name}-ccai"
    saved = run.folder.save_model(name, lambda target: _save(run, whole, target))
    draw(read_log(run.folder.log), run.folder.curve)
    seconds = round(time.monotonic() - began, 1)
    result = _result(run, trainer, saved, resumed_from, peak, seconds, step)
    run.folder.finish(result)
    TrainingLog(run.folder.log, after_step=result.steps).write(
        "end", result.steps, result.steps, float(result.epochs),
        model=saved.identity, seconds=seconds, peak_memory_mb=peak,
    )  # fmt: skip
    return result


def _take_best(run: PreparedRun, trainer: Trainer) -> int:
    """Put the weights that were measured best into the trainer; return their step."""
    best = evaluated(trainer.state.log_history, run.config.measure).best
    if best is None or best.step == trainer.state.global_step:
        return int(trainer.state.global_step)
    trainer.state.best_model_checkpoint = str(run.folder.checkpoints / f"checkpoint-{best.step}")
    if not Path(trainer.state.best_model_checkpoint).is_dir():
        raise ModelError(
            f"The weights of step {best.step}, the best ones, are gone from "
            f"{run.folder.checkpoints}. Set select to last to take the last ones."
        )
    trainer._load_best_model()
    return best.step


def _save(run: PreparedRun, trained: Any, target: Path) -> None:
    """Write the model with the tokenizer and its chat template."""
    import torch
    from transformers import AutoConfig

    # Training switches the key-value cache off; saved like that, generation would be slow for ever.
    base = AutoConfig.from_pretrained(str(run.model.path))
    trained.config.use_cache = getattr(base, "use_cache", True)
    trained.to(getattr(torch, _saved_dtype(run))).save_pretrained(str(target))
    run.tokenizer.save_pretrained(str(target))


def _saved_dtype(run: PreparedRun) -> str:
    # Many base models are bf16 on disk, and DPO's updates are smaller than a step between two bf16
    # numbers: measured, rounding back kept 1% of the margin. So fp32 unless it is asked for.
    if run.config.save_dtype == "fp32":
        return "float32"
    return _DTYPES.get(run.shape.dtype, "float32")


def _result(
    run: PreparedRun,
    trainer: Trainer,
    saved: ModelRef,
    resumed: int | None,
    peak: int,
    seconds: float,
    step: int,
) -> TrainingResult:
    history = trainer.state.log_history
    measured = validations(history, len(run.validation), tell)
    return TrainingResult(
        model_path=saved.path,
        model=saved,
        base_model=run.model.identity,
        inputs=fingerprint(run.inputs),
        pairs_train=len(run.train),
        pairs_validation=len(run.validation),
        pairs_cut=run.cut,
        length_limit=run.limit,
        longest=run.longest,
        steps=trainer.state.global_step,
        epochs=run.config.epochs,
        seconds=seconds,
        train_loss=[entry["loss"] for entry in history if "loss" in entry][-1],
        validation_before=measured.get(0),
        validation_after=measured.get(step),
        model_step=step,
        stopped_early=trainer.state.global_step < trainer.state.max_steps,
        verdict=verdict(read_log(run.folder.log)),
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
