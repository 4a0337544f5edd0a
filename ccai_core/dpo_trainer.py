"""TRL's DPOTrainer as this project runs it: one process, our log, sealed checkpoints, no NaN.

Imports torch, transformers and TRL (seconds), so it is imported by `ccai_core.dpo.train` only when
there is something to train. The loss is -log sigmoid(beta * (log-ratio of chosen - log-ratio of
rejected)), log-ratios being between the policy and the model before training: equation 7 of
Rafailov et al. 2023 (arXiv 2305.18290).

    trainer = build(config, plan, weights, tokenizer, train, validation, settings, Progress(...))
    trainer.train()
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging as hf_logging
from trl import DPOConfig, DPOTrainer

from ccai_core import checkpoints
from ccai_core.errors import ModelError
from ccai_core.memory import MemoryPlan
from ccai_core.training_config import TrainingConfig, Validation
from ccai_core.training_data import rows
from ccai_core.training_log import TrainingLog
from ccai_core.types import PreferencePair

# TRL's names on the left, ours (log, curve, MLflow) on the right.
_METRICS = {
    "loss": "loss",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "logps/chosen": "logp_chosen",
    "logps/rejected": "logp_rejected",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
}

# The same for every run. Evaluation is every epoch's steps, not every epoch: then Trainer evaluates
# before it saves at the same step, so a run that goes on from there has not lost the evaluation.
_FIXED: dict[str, Any] = {
    "loss_type": ["sigmoid"],
    # Over-long pairs were left out before: TRL must not cut answers.
    "max_length": None,
    # TRL averages evaluation metrics over batches: with one pair a batch that is over pairs.
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

# Beyond rounding: before the first step the policy is the reference, so its rewards are zero.
_ZERO_MARGIN = 1e-3


def build(
    config: TrainingConfig,
    plan: MemoryPlan,
    model: Any,
    tokenizer: Any,
    train: Sequence[PreferencePair],
    validation: Sequence[PreferencePair],
    settings: DPOConfig,
    callback: TrainerCallback,
) -> Trainer:
    """Make a trainer; this computes the reference model's log-probabilities of all pairs."""
    adapters = None
    if plan.method == "lora":
        adapters = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
    special = tokenizer.all_special_tokens
    trainer = Trainer(
        model=model,
        args=settings,
        processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list(rows(train, special)),
        eval_dataset=datasets.Dataset.from_list(rows(validation, special)) if validation else None,
        peft_config=adapters,
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    if adapters is not None:
        _restore_dropout(trainer.model, config.lora_dropout)
    return trainer


def dpo_settings(
    config: TrainingConfig,
    plan: MemoryPlan,
    folder: Path,
    device: str,
    precision: str,
    pairs_train: int,
    validate: bool,
    resuming: bool,
) -> DPOConfig:
    """Translate our config into TRL's, every default that matters said explicitly."""
    batches = math.ceil(pairs_train / config.batch_size)
    settings = DPOConfig(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_ratio,
        beta=config.beta,
        # Full: no second model in memory. LoRA: less work from two epochs on. Same results.
        precompute_ref_log_probs=plan.method == "full" or config.epochs > 1,
        use_cpu=device == "cpu",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        # transformers' new name for gradient checkpointing; TRL reads the old one, which follows.
        activation_checkpointing=plan.gradient_checkpointing,
        seed=config.seed,
        data_seed=config.seed,
        dataloader_pin_memory=device == "cuda",
        eval_on_start=validate and not resuming,
        eval_strategy="steps" if validate else "no",
        eval_steps=math.ceil(batches / config.gradient_accumulation),
        save_steps=config.save_steps,
        logging_steps=config.log_steps,
        **_FIXED,
    )
    # Several visible GPUs would make Trainer use DataParallel, which DPOTrainer refuses.
    settings._n_gpu = min(settings.n_gpu, 1)
    return settings


class Trainer(DPOTrainer):  # type: ignore[misc]
    """DPOTrainer that stops at the first loss that is no number, and calls nobody."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute one batch's loss and gradients.

        Raises:
            ModelError: the loss is inf or nan; no weight has been updated with it.
        """
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise ModelError(self._diverged(f"the loss became {loss.item()}"))
        return loss

    def _diverged(self, what: str) -> str:
        settings = self.args
        half = settings.bf16 or settings.fp16
        good = [c.name for c in checkpoints.sealed(Path(settings.output_dir))]
        return (
            f"Training stopped after step {self.state.global_step}: {what}. Lower learning_rate "
            f"(now {settings.learning_rate:g}){' or set precision to fp32' if half else ''}. "
            f"Last good checkpoint: {good[0] if good else 'none yet'}."
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # A finite loss may still have had gradients that were not.
        for name, weight in self.model.named_parameters():
            if weight.requires_grad and not torch.isfinite(weight).all():
                raise ModelError(self._diverged(f"weights of {name} are inf or nan"))
        super()._save_checkpoint(model, trial)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no model card: TRL would put one beside the checkpoints at every save."""

    def _send_telemetry(self) -> None:
        """Send nothing: TRL reports every trainer to the hub unless that is switched off."""


class Progress(TrainerCallback):  # type: ignore[misc]
    """Writes the log and one printed line for each entry; seals and prunes checkpoints."""

    def __init__(
        self, log: TrainingLog, keep: int, tell: Callable[[str], None], **about: Any
    ) -> None:
        self._log, self._keep, self._tell, self._about = log, keep, tell, about
        self._began = time.monotonic()
        self._first = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log the start, or where a resumed run goes on."""
        self._began, self._first = time.monotonic(), state.global_step
        self._log.write(
            "start", state.global_step, state.max_steps, state.epoch or 0.0, **self._about
        )
        self._tell(f"Training: steps {state.global_step} to {state.max_steps}.")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log the last step, whatever log_steps is."""
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Log a step's or an evaluation's metrics; Trainer's closing summary is neither."""
        event, prefix = ("eval", "eval_") if "eval_loss" in logs else ("step", "")
        if f"{prefix}loss" not in logs:
            return
        metrics = {
            ours: logs[prefix + theirs]
            for theirs, ours in _METRICS.items()
            if prefix + theirs in logs
        }
        step, total = state.global_step, state.max_steps
        self._log.write(event, step, total, state.epoch or 0.0, **metrics)  # type: ignore[arg-type]
        self._tell(
            f"{'validation' if event == 'eval' else 'step'} {step}/{total}: "
            f"loss {metrics['loss']:.4f}, margin {metrics['margin']:+.4f}, "
            f"accuracy {metrics['accuracy']:.2f}{self._remaining(step, total)}"
        )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the checkpoint that was just written; only then may older ones go."""
        root = Path(args.output_dir)
        checkpoints.seal(root / f"checkpoint-{state.global_step}")
        checkpoints.prune(root, self._keep)

    def _remaining(self, step: int, total: int) -> str:
        done = step - self._first
        if done <= 0 or step == total:
            return ""
        each = (time.monotonic() - self._began) / done
        left = timedelta(seconds=round(each * (total - step)))
        return f", {each:.1f} s/step, {left} left"


def validations(
    history: Sequence[dict[str, Any]], n: int, tell: Callable[[str], None]
) -> list[Validation]:
    """Return every evaluation of the run, also those from before it was resumed, oldest first."""
    found = [
        Validation(
            loss=entry["eval_loss"],
            margin=entry["eval_rewards/margins"],
            accuracy=entry["eval_rewards/accuracies"],
            n=n,
        )
        for entry in history
        if "eval_loss" in entry
    ]
    if found and abs(found[0].margin) > _ZERO_MARGIN:
        tell(
            f"Warning: the margin before training is {found[0].margin:.4f} instead of 0: policy "
            "and reference do not agree to rounding, so margins are off by about that much."
        )
    return found


def _restore_dropout(model: torch.nn.Module, probability: float) -> None:
    """Give LoRA its dropout back: TRL switches off all dropout, the adapters' included."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_dropout" in name:
            module.p = probability


@contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars and the libraries' notices to each other out of a job's log."""
    tqdm, bars = os.environ.get("TQDM_DISABLE"), datasets.are_progress_bars_disabled()
    loading = hf_logging.is_progress_bar_enabled()
    os.environ["TQDM_DISABLE"] = "1"
    datasets.disable_progress_bars()
    hf_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # TRL 1.16 still uses names that transformers 5.23 is renaming.
            warnings.filterwarnings("ignore", message=".*deprecated and will be removed in v6.*")
            yield
    finally:
        os.environ.pop("TQDM_DISABLE")
        if tqdm is not None:
            os.environ["TQDM_DISABLE"] = tqdm
        if not bars:
            datasets.enable_progress_bars()
        if loading:
            hf_logging.enable_progress_bar()
