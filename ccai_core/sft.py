"""The supervised stage before DPO: train a model on the chosen answers, and on them alone.

A plain function of picklable arguments, like `ccai_core.dpo.train`, and with the same promises:
called again it returns what is finished, goes on from the newest good checkpoint, or starts.

    result = fine_tune(SftConfig(epochs=1), resolve_model("embedded"), pairs, out=Path("run"))
    train(TrainingConfig(), result.model, pairs, out=Path("run-dpo"))
"""

from __future__ import annotations

import time
from pathlib import Path

from ccai_core import checkpoints
from ccai_core.errors import ConfigError
from ccai_core.models import ModelRef
from ccai_core.sft_config import SftConfig, SftResult
from ccai_core.training_output import RunFolder
from ccai_core.training_run import (
    PreparedRun,
    Start,
    carry_out,
    device_of,
    inputs_of,
    training_precision,
)

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
    where = device_of(device)
    start = Start(
        config.as_training(),
        model,
        pairs,
        RunFolder(out),
        where,
        training_precision(config.precision, where),
        {"stage": "sft", **inputs_of(config, model, pairs)},
        SftResult,
        words=("fine-tuned", "chosen answers"),
        longest=lambda fitting: fitting.longest,
    )
    return carry_out(start, lambda run: _train(run, began))


def _train(run: PreparedRun, began: float) -> SftResult:
    """Train to the end from the newest good checkpoint, or from the start."""
    from ccai_core import sft_trainer
    from ccai_core.training_finish import finish
    from ccai_core.training_progress import quiet
    from ccai_core.training_weights import weights_to_train
    from ccai_core.whole_model import whole_model

    newest = run.ranks.by_first(lambda: checkpoints.newest_valid(run.folder.checkpoints, run.tell))
    resumed = checkpoints.step_of(newest) if newest else None
    if newest:
        run.tell(f"Going on from {newest.name}.")
    # Before the weights: ZeRO-3 divides them while they are read.
    settings = sft_trainer.sft_settings(run, resuming=newest is not None)
    progress = sft_trainer.SftProgress(
        run.open_log(after_step=resumed), run.config.keep_checkpoints, run.tell,
        resumed_from=resumed, **run.about(),
    )  # fmt: skip
    with quiet():
        trainer = sft_trainer.build(run, weights_to_train(run), settings, progress)
        with progress.leaving:
            trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        # Wherever its weights are: in one process, or divided over many.
        whole = whole_model(run, trainer)
        found = sft_trainer.measured(trainer.state.log_history, len(run.validation))
        return run.ranks.by_first(
            lambda: finish(
                run,
                trainer,
                whole,
                resumed,
                began,
                SftResult,
                "sft",
                sft_trainer.draw_curve,
                validation_before=found.get(0),
                validation_after=found.get(int(trainer.state.global_step)),
            )
        )
