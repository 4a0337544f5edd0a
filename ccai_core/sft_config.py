"""What the supervised stage before DPO is asked to do, and what it hands back.

Hugging Face's constitutional recipe trains on the revisions themselves first, and only then prefers
them to the first answers. Imports neither torch nor TRL, like `ccai_core.training_config`, whose
words these are.

    config = SftConfig(epochs=1, learning_rate=1e-5)
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from ccai_core.config import Config
from ccai_core.memory import Method
from ccai_core.models import Precision
from ccai_core.training_config import TrainedModel, TrainingConfig


class SftConfig(Config):
    """Settings of the supervised stage: the chosen answers, word by word, before DPO."""

    epochs: int = Field(
        0, ge=0, le=100, description="Times every chosen answer is seen; 0: no supervised stage."
    )
    method: Method = Field(
        "full", description="'full' trains every weight; 'lora' trains small adapters, then merges."
    )
    batch_size: int = Field(1, ge=1, le=1024, description="Answers computed together.")
    gradient_accumulation: int = Field(
        4,
        ge=1,
        le=4096,
        description="Batches summed into one weight update, of all processes together.",
    )
    learning_rate: float = Field(
        1e-5, gt=0, le=1e-2, description="Peak AdamW step size; LoRA usually wants about 1e-4."
    )
    warmup_ratio: float = Field(
        0.1, ge=0, lt=1, description="Share of steps in which the learning rate climbs to its peak."
    )
    precision: Precision = Field(
        "auto",
        description="Arithmetic of steps; auto: bf16 or fp16 on CUDA, fp16 on MPS, fp32 on CPU.",
    )
    max_length: int = Field(
        1024, ge=16, le=131_072, description="Most tokens of prompt plus answer; never cut."
    )
    over_length: Literal["drop", "error"] = Field(
        "drop", description="What becomes of longer pairs: left out and counted, or an error."
    )
    save_steps: int = Field(100, ge=1, description="Weight updates between two checkpoints.")
    keep_checkpoints: int = Field(2, ge=1, le=100, description="Newest checkpoints that are kept.")
    validation_fraction: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="Share of prompts held out to measure on; no less than DPO holds out.",
    )
    lora_rank: int = Field(16, ge=1, le=1024, description="Width of a LoRA adapter.")
    lora_alpha: int = Field(32, ge=1, le=4096, description="LoRA scale; adapters count alpha/rank.")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="Dropout in front of LoRA adapters.")
    max_memory_mb: int | None = Field(
        None, ge=1, description="Memory to stay within; the plan is made lighter until it fits."
    )
    gradient_checkpointing: bool | None = Field(
        None, description="Recompute activations to save memory (slower); unset: only where needed."
    )
    nodes: int = Field(1, ge=1, le=1024, description="Machines that train together.")
    ranks: int = Field(
        1, ge=1, le=64, description="Processes on each machine, one a GPU; they share each update."
    )
    zero: Literal[0, 1, 2, 3] = Field(
        0,
        description="What DeepSpeed divides over the processes: 1 optimizer states, 2 gradients "
        "too, 3 weights too; 0: nothing, plain data parallelism.",
    )
    offload: Literal["none", "optimizer", "all"] = Field(
        "none",
        description="What waits in the host's memory: optimizer states, or (zero 3) weights too.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of data order, adapters and dropout.")
    log_steps: int = Field(1, ge=1, description="Weight updates between two lines of the log.")

    def as_training(self) -> TrainingConfig:
        """Return the settings that a training of any kind has; what is DPO's own is at its default.

        Raises:
            ValidationError: they do not go together.
        """
        return TrainingConfig(**{**self.model_dump(), "epochs": max(1, self.epochs)})

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        try:
            self.as_training()
        except ValidationError as error:
            said = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(said) from None
        return self


class Answered(Config):
    """The model on the chosen answers of held-out prompts."""

    loss: float = Field(description="Nats a token, mean over answers.")
    accuracy: float = Field(
        ge=0, le=1, description="Share of tokens that the model finds likeliest, mean over answers."
    )
    n: int = Field(ge=1, description="Held-out answers.")


class SftResult(TrainedModel):
    """What a finished supervised stage made. Stored as training.json."""

    validation_before: Answered | None = Field(description="Held-out answers before step 1.")
    validation_after: Answered | None = Field(description="Held-out answers, the saved weights.")
