"""From our settings to a trainer of TRL's: what is said explicitly, and what stays at a default.

Imports torch, transformers and TRL (seconds), so it is imported by `ccai_core.dpo.train` only when
there is something to train. The loss is -log sigmoid(beta * (log-ratio of chosen - log-ratio of
rejected)), log-ratios being between the policy and the model before training: equation 7 of
Rafailov et al. 2023 (arXiv 2305.18290).

    trainer = build(config, plan, weights, tokenizer, train, validation, settings, Progress(...))
    trainer.train()
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig
from transformers import PrinterCallback
from trl import DPOConfig

from ccai_core.deepspeed_settings import deepspeed_settings
from ccai_core.memory import MemoryPlan
from ccai_core.pair_rows import PairCollator, add_pair_head, why_not
from ccai_core.pair_trainer import Trainer
from ccai_core.reference import ReferenceCache
from ccai_core.training_config import TrainingConfig, batches_of_a_rank
from ccai_core.training_data import rows
from ccai_core.training_progress import Progress
from ccai_core.types import PreferencePair

# The same for every run. Evaluation is every epoch's steps, not every epoch: then Trainer evaluates
# before it saves at the same step, so a run that goes on from there has not lost the evaluation.
_FIXED: dict[str, Any] = {
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
    "disable_tqdm": True,
}


def build(
    config: TrainingConfig,
    plan: MemoryPlan,
    model: Any,
    tokenizer: Any,
    train: Sequence[PreferencePair],
    validation: Sequence[PreferencePair],
    settings: DPOConfig,
    callback: Progress,
    reference: ReferenceCache,
) -> Trainer:
    """Make a trainer; this computes those of the reference's log-probabilities not known yet."""
    adapters = lora(config) if plan.method == "lora" else None
    special = tokenizer.all_special_tokens
    collator = None
    if reason := why_not(model):
        callback.tell(f"Pairs are padded to the longest of their batch: {reason}.")
    else:
        add_pair_head(model, packed=settings.device.type == "cuda")
        collator = PairCollator(pad_token_id=tokenizer.pad_token_id, max_length=None)
    trainer = Trainer(
        reference=reference,
        progress=callback,
        simpo_gamma=config.simpo_gamma if config.loss == "simpo" else None,
        model=model,
        data_collator=collator,
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


def lora(config: TrainingConfig) -> LoraConfig:
    """Return PEFT's settings of the adapters."""
    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


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
        gradient_accumulation_steps=batches_of_a_rank(config),
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_ratio,
        beta=config.beta,
        # SimPO is DPO's loss over averages, with another "reference": see reference_free.
        loss_type=["sigmoid_norm" if config.loss == "simpo" else config.loss],
        label_smoothing=config.label_noise if config.loss == "robust" else 0.0,
        ld_alpha=config.length_desensitised,
        # No second model in memory, and nothing computed twice: see _precompute_ref_logps.
        precompute_ref_log_probs=True,
        use_cpu=device == "cpu",
        ddp_backend="gloo" if device == "cpu" and config.world > 1 else None,
        deepspeed=deepspeed_settings(config, device, precision) or None,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        # transformers' new name for gradient checkpointing; TRL reads the old one, which follows.
        activation_checkpointing=plan.gradient_checkpointing,
        seed=config.seed,
        data_seed=config.seed,
        dataloader_pin_memory=device == "cuda",
        eval_on_start=validate and not resuming,
        eval_strategy="steps" if validate else "no",
        eval_steps=config.eval_steps or math.ceil(batches / config.gradient_accumulation),
        save_steps=config.save_steps,
        logging_steps=config.log_steps,
        report_to=list(config.report_to),
        **_FIXED,
    )
    # Several visible GPUs would make Trainer use DataParallel, which DPOTrainer refuses.
    settings._n_gpu = min(settings.n_gpu, 1)
    return settings


def _restore_dropout(model: torch.nn.Module, probability: float) -> None:
    """Give LoRA its dropout back: TRL switches off all dropout, the adapters' included."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_dropout" in name:
            module.p = probability
