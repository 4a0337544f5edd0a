"""Train a model on preference pairs by DPO: planned to fit the memory, resumable, reproducible.

`train` is a plain function of picklable arguments that reads and writes files and prints its
progress, so it is the same in this process, in a subprocess and as a job on a cluster. Called again
it returns what is finished, goes on from the newest good checkpoint, or starts.

    result = train(TrainingConfig(epochs=1), resolve_model("embedded"), pairs, out=Path("run"))
    print(result.validation_before.margin, "->", result.validation_after.margin)
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ccai_core import checkpoints
from ccai_core.models import ModelRef
from ccai_core.reference import ReferenceCache
from ccai_core.training_config import TrainingConfig, TrainingResult, Validation, estimate_steps
from ccai_core.training_curve import draw
from ccai_core.training_log import read_log
from ccai_core.training_output import RunFolder
from ccai_core.training_reporters import check_reporters
from ccai_core.training_run import (
    PreparedRun,
    Start,
    carry_out,
    device_of,
    inputs_of,
    training_precision,
)
from ccai_core.training_watch import verdict

__all__ = ["TrainingConfig", "TrainingResult", "Validation", "estimate_steps", "train"]


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
        ConfigError: another number of processes was started than is asked for.
        DataError: the pairs cannot be used; raised before any weights are loaded.
        ModelError: the device or precision is not there, it does not fit, or training diverged.
        ArtifactError: `out` belongs to another run or process.
    """
    began = time.monotonic()
    check_reporters(config.report_to)
    where = device_of(device)
    folder = RunFolder(out)
    start = Start(
        config,
        model,
        pairs,
        folder,
        where,
        training_precision(config.precision, where),
        inputs_of(config, model, pairs),
        TrainingResult,
    )
    kept = reference or folder.root / "reference"
    return carry_out(start, lambda run: _train(run, began, kept))


def _train(run: PreparedRun, began: float, kept: Path) -> TrainingResult:
    """Train to the end from the newest good checkpoint, or from the start."""
    from ccai_core import dpo_trainer
    from ccai_core.training_finish import choose, finish
    from ccai_core.training_progress import Progress, quiet
    from ccai_core.training_weights import weights_to_train
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
    progress = Progress(
        run.open_log(after_step=resumed_from), run.config.keep_checkpoints, run.tell,
        patience=run.config.patience, keep_best=run.config.select == "best",
        measure=run.config.measure, has_reference=run.config.loss != "simpo",
        resumed_from=resumed_from, **run.about(),
    )  # fmt: skip
    with quiet():
        trainer = dpo_trainer.build(
            run.config, run.plan, weights_to_train(run), run.tokenizer, run.train, run.validation,
            settings, progress, ReferenceCache(kept, _reference_identity(run)),
        )  # fmt: skip
        with progress.leaving:
            trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        step = choose(run, trainer)
        whole = whole_model(run, trainer)
        return run.ranks.by_first(
            lambda: finish(
                run,
                trainer,
                whole,
                resumed_from,
                began,
                TrainingResult,
                "ccai",
                draw,
                **_found(run, trainer.state, step),
            )
        )


def _found(run: PreparedRun, state: Any, step: int) -> dict[str, Any]:
    """Return what a result of DPO has beyond those of other trainings."""
    from ccai_core.training_progress import validations

    measured = validations(state.log_history, len(run.validation), run.tell)
    return {
        "validation_before": measured.get(0),
        "validation_after": measured.get(step),
        "model_step": step,
        "stopped_early": state.global_step < state.max_steps,
        "verdict": verdict(read_log(run.folder.log)),
    }


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
