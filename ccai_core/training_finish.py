"""The end of a training run: which weights become the model, and what is said of them.

step = choose(run, trainer)                       # in every process
result = finish(run, trainer, whole_model(run, trainer), None, began, TrainingResult, "ccai", draw)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ccai_core import memory
from ccai_core.errors import ModelError
from ccai_core.training_config import TrainedModel
from ccai_core.training_log import TrainingLog, read_log
from ccai_core.training_progress import evaluated
from ccai_core.types import fingerprint

if TYPE_CHECKING:
    from ccai_core.pair_trainer import Trainer
    from ccai_core.training_run import PreparedRun

R = TypeVar("R", bound=TrainedModel)

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def choose(run: PreparedRun, trainer: Trainer) -> int:
    """Put the weights that become the model into the trainer; return their step."""
    return _take_best(run, trainer) if run.config.select == "best" else trainer.state.global_step


def finish(
    run: PreparedRun,
    trainer: Any,
    whole: Any,
    resumed_from: int | None,
    began: float,
    kind: type[R],
    made: str,
    draw: Callable[[list[dict[str, Any]], Path], None],
    **found: Any,
) -> R:
    """Save the model, draw the curve, and only then write the result and the log's end.

    Args:
        run: what was to be trained.
        trainer: what trained it.
        whole: the model, wherever its weights were.
        resumed_from: step of the checkpoint it went on from.
        began: when, on the monotonic clock.
        kind: what the result is.
        made: what the model's name ends with.
        draw: draws the log's lines into a file.
        found: what a result of this kind has beyond others.
    """
    peak = memory.peak_mb(run.device)
    name = f"{run.model.name}-{made}"
    saved = run.folder.save_model(name, lambda target: _save(run, whole, target))
    draw(read_log(run.folder.log), run.folder.curve)
    history, steps = trainer.state.log_history, int(trainer.state.global_step)
    seconds = round(time.monotonic() - began, 1)
    result = kind(
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
        device=run.device,
        precision=run.precision,
        batch_size=run.config.batch_size,
        saved_dtype=_saved_dtype(run),
        method=run.plan.method,
        memory=run.plan,
        resumed_from=resumed_from,
        peak_memory_mb=peak,
        seed=run.config.seed,
        **found,
    )
    run.folder.finish(result)
    TrainingLog(run.folder.log, after_step=steps).write(
        "end", steps, steps, float(result.epochs),
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
