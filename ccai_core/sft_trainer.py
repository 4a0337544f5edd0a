"""From the settings of the supervised stage to a trainer of TRL's, and what it says while it runs.

The loss is the mean of -log p(token) over the tokens of the chosen answers; prompts are read and
not learned. Imports torch, transformers and TRL (seconds), so it is imported by
`ccai_core.sft.fine_tune` only when there is something to train.

    trainer = build(run, weights, settings(run, resuming=False), SftProgress(...))
    trainer.train()
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from ccai_core import checkpoints, training_curve
from ccai_core.deepspeed_settings import deepspeed_settings
from ccai_core.dpo_trainer import lora
from ccai_core.files import write_whole
from ccai_core.guarded_trainer import GuardedTrainer
from ccai_core.sft_config import Answered
from ccai_core.training_config import batches_of_a_rank
from ccai_core.training_data import columns
from ccai_core.training_leaving import Leaving
from ccai_core.training_log import Event, TrainingLog
from ccai_core.types import PreferencePair

if TYPE_CHECKING:
    from ccai_core.dpo import PreparedRun

# TRL's names on the left, ours (log, curve, MLflow) on the right.
_METRICS = {
    "loss": "loss",
    "mean_token_accuracy": "token_accuracy",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
}
_PANELS = (
    ("loss", "Loss on chosen answers (nats a token)"),
    ("token_accuracy", "Share of tokens found likeliest"),
)
_TITLE = "Supervised stage"

# The same for every run; see those of ccai_core.dpo_trainer.
_FIXED: dict[str, Any] = {
    # Over-long pairs were left out before: TRL must not cut answers.
    "max_length": None,
    "completion_only_loss": True,
    "packing": False,
    # TRL averages evaluation metrics over batches: with one answer a batch that is over answers.
    "per_device_eval_batch_size": 1,
    "activation_checkpointing_kwargs": {"use_reentrant": False},
    "dataloader_num_workers": 0,
    "save_strategy": "steps",
    # Checkpoints are pruned by us, once the newest is sealed.
    "save_total_limit": None,
    "logging_strategy": "steps",
    "logging_nan_inf_filter": False,
    "report_to": [],
    "disable_tqdm": True,
}


class Trainer(GuardedTrainer, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that stops at NaN, and calls nobody."""


class SftProgress(TrainerCallback):  # type: ignore[misc]
    """Writes the log and one printed line for each entry; seals and prunes checkpoints."""

    def __init__(
        self, log: TrainingLog, keep: int, tell: Callable[[str], None], **about: Any
    ) -> None:
        self._log, self._keep, self._tell, self._about = log, keep, tell, about
        self.leaving = Leaving(tell)
        self._began = time.monotonic()
        self._first = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log the start, or where a resumed run goes on."""
        self._began, self._first = time.monotonic(), state.global_step
        self.leaving.begin(state.global_step)
        self._log.write(
            "start", state.global_step, state.max_steps, state.epoch or 0.0, **self._about
        )
        self._tell(f"Training: steps {state.global_step} to {state.max_steps}.")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log the last step, whatever log_steps is; save and stop when asked to leave."""
        if state.global_step >= state.max_steps:
            control.should_log = True
        self.leaving.after_step(state, control)

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """When asked to leave, give up the update that has begun and save the last whole one."""
        self.leaving.within_step(state, control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """When asked to leave, save and stop."""
        self.leaving.after_step(state, control)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Log a step's or an evaluation's metrics; Trainer's closing summary is neither."""
        event: Event = "eval" if "eval_loss" in logs else "step"
        prefix = "eval_" if event == "eval" else ""
        if f"{prefix}loss" not in logs:
            return
        metrics = {
            ours: logs[prefix + theirs]
            for theirs, ours in _METRICS.items()
            if prefix + theirs in logs
        }
        step, total = state.global_step, state.max_steps
        self._log.write(event, step, total, state.epoch or 0.0, **metrics)
        self._tell(
            f"{'validation' if event == 'eval' else 'step'} {step}/{total}: "
            f"loss {metrics['loss']:.4f}, token accuracy {metrics['token_accuracy']:.2f}"
            f"{self._remaining(step, total)}"
        )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the checkpoint that was just written; only then may older ones go."""
        if state.is_world_process_zero:
            root = Path(args.output_dir)
            checkpoints.seal(root / f"checkpoint-{state.global_step}")
            checkpoints.prune(root, self._keep)
        self.leaving.after_save(state, control)

    def _remaining(self, step: int, total: int) -> str:
        done = step - self._first
        if done <= 0 or step == total:
            return ""
        each = (time.monotonic() - self._began) / done
        left = timedelta(seconds=round(each * (total - step)))
        return f", {each:.1f} s/step, {left} left"


def answers(pairs: Sequence[PreferencePair], special: Sequence[str]) -> list[dict[str, Any]]:
    """Return the chosen sides in TRL's conversational format: columns prompt, completion."""
    return [
        {"prompt": columns(pair.prompt, special), "completion": columns(pair.chosen, special)}
        for pair in pairs
    ]


def build(run: PreparedRun, model: Any, settings: SFTConfig, callback: SftProgress) -> Trainer:
    """Make a trainer."""
    special = run.tokenizer.all_special_tokens
    held_out = datasets.Dataset.from_list(answers(run.validation, special))
    trainer = Trainer(
        model=model,
        args=settings,
        processing_class=run.tokenizer,
        train_dataset=datasets.Dataset.from_list(answers(run.train, special)),
        eval_dataset=held_out if run.validation else None,
        peft_config=lora(run.config) if run.plan.method == "lora" else None,
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def sft_settings(run: PreparedRun, resuming: bool) -> SFTConfig:
    """Translate our settings into TRL's, every default that matters said explicitly."""
    config, device = run.config, run.device
    updates = math.ceil(
        math.ceil(len(run.train) / config.batch_size) / config.gradient_accumulation
    )
    validate = bool(run.validation)
    settings = SFTConfig(
        output_dir=str(run.folder.checkpoints),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=batches_of_a_rank(config),
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_ratio,
        use_cpu=device == "cpu",
        ddp_backend="gloo" if device == "cpu" and config.world > 1 else None,
        deepspeed=deepspeed_settings(config, device, run.precision) or None,
        bf16=run.precision == "bf16",
        fp16=run.precision == "fp16",
        activation_checkpointing=run.plan.gradient_checkpointing,
        seed=config.seed,
        data_seed=config.seed,
        dataloader_pin_memory=device == "cuda",
        eval_on_start=validate and not resuming,
        eval_strategy="steps" if validate else "no",
        # An epoch's; see ccai_core.dpo_trainer for why it is not said like that.
        eval_steps=updates,
        save_steps=config.save_steps,
        logging_steps=config.log_steps,
        **_FIXED,
    )
    # Several visible GPUs would make Trainer use DataParallel.
    settings._n_gpu = min(settings.n_gpu, 1)
    return settings


def measured(history: Sequence[dict[str, Any]], n: int) -> dict[int, Answered]:
    """Return every evaluation of the run by its step, also those from before it was resumed."""
    return {
        int(entry["step"]): Answered(
            loss=entry["eval_loss"], accuracy=entry["eval_mean_token_accuracy"], n=n
        )
        for entry in history
        if "eval_loss" in entry
    }


def draw_curve(entries: Sequence[dict[str, Any]], target: Path) -> None:
    """Draw loss and token accuracy into `target`, replacing it whole."""
    picture = training_curve._picture(entries, _PANELS, (7, 5.6), _TITLE)
    words = training_curve.describe(entries, _PANELS)
    write_whole(target, training_curve._accessible(picture, "curve", _TITLE, words))
