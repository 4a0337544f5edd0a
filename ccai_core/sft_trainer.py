"""From the settings of the supervised stage to a trainer of TRL's, and what it says while it runs.

The loss is the mean of -log p(token) over the tokens of the chosen answers; prompts are read and
not learned. Imports torch, transformers and TRL (seconds), so it is imported by
`ccai_core.sft.fine_tune` only when there is something to train.

    trainer = build(run, weights, settings(run, resuming=False), SftProgress(...))
    trainer.train()
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from ccai_core.deepspeed_settings import deepspeed_settings
from ccai_core.dpo_trainer import lora
from ccai_core.guarded_trainer import GuardedTrainer
from ccai_core.sft_config import Answered
from ccai_core.training_callback import FollowedTraining
from ccai_core.training_config import batches_of_a_rank
from ccai_core.training_curve import draw
from ccai_core.training_data import columns
from ccai_core.training_log import Event
from ccai_core.types import PreferencePair

if TYPE_CHECKING:
    from ccai_core.training_run import PreparedRun

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


class SftProgress(FollowedTraining):
    """Follows the supervised stage."""

    def measured(self, event: Event, logs: dict[str, Any], prefix: str) -> dict[str, Any]:
        """Return what TRL measured, by our names."""
        names = {prefix + theirs: ours for theirs, ours in _METRICS.items()}
        return {ours: logs[theirs] for theirs, ours in names.items() if theirs in logs}

    def words(self, metrics: dict[str, Any]) -> str:
        """Return what is printed of a line's metrics."""
        return f"loss {metrics['loss']:.4f}, token accuracy {metrics['token_accuracy']:.2f}"


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
    draw(entries, target, _PANELS, "Supervised stage")
