"""What a DPO training run is asked to do, and what it hands back.

Both are plain frozen configs that import neither torch nor TRL, so that a driver, a CLI or a form
can build one and read the other in milliseconds.

    config = TrainingConfig(method="lora", learning_rate=1e-5)
    estimate_steps(config, pairs_count=200)      # 135
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from ccai_core.config import Config
from ccai_core.memory import MemoryPlan, Method
from ccai_core.models import ModelRef, Precision

Loss = Literal["sigmoid", "hinge", "ipo", "robust", "sigmoid_norm", "apo_zero", "apo_down", "simpo"]
Measure = Literal["loss", "margin"]
Reporter = Literal["clearml", "comet_ml", "swanlab", "tensorboard", "trackio", "wandb"]

# Who computes a run and who is told of it, not what it computes.
LAYOUT = frozenset({"nodes", "ranks", "zero", "offload", "compile_blocks", "report_to"})


class TrainingConfig(Config):
    """Settings of one DPO training run (Rafailov et al. 2023, arXiv 2305.18290)."""

    method: Method = Field(
        "full", description="'full' trains every weight; 'lora' trains small adapters, then merges."
    )
    epochs: int = Field(3, ge=1, le=100, description="Times every training pair is seen.")
    batch_size: int = Field(
        1, ge=1, le=1024, description="Pairs computed together; costs memory, two sequences a pair."
    )
    gradient_accumulation: int = Field(
        4,
        ge=1,
        le=4096,
        description="Batches summed into one weight update, of all processes together.",
    )
    learning_rate: float = Field(
        1e-6, gt=0, le=1e-2, description="Peak AdamW step size; LoRA usually wants about 1e-5."
    )
    beta: float = Field(
        0.1, gt=0, le=10, description="Pull to the model before training; more is closer."
    )
    loss: Loss = Field(
        "sigmoid", description="What is minimised; sigmoid is DPO's own. docs/training.md has all."
    )
    label_noise: float = Field(
        0.1, ge=0, lt=0.5, description="Share of pairs thought to be reversed; loss robust only."
    )
    length_desensitised: float | None = Field(
        None, ge=0, le=1, description="Weight of what one answer has beyond the other's length."
    )
    simpo_gamma: float = Field(
        0.5, ge=0, le=10, description="Margin that is aimed at, over beta; loss simpo only."
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
        0.1, ge=0, le=0.5, description="Share of prompts held out to measure on; 0 holds out none."
    )
    eval_steps: int | None = Field(
        None, ge=1, description="Weight updates between two measurements; unset: an epoch."
    )
    select: Literal["last", "best"] = Field(
        "last", description="Which weights become the model: the last, or those measured best."
    )
    patience: int | None = Field(
        None, ge=1, description="Measurements without a better one after which training ends."
    )
    measure: Measure = Field(
        "loss", description="What select and patience call better: less loss, or more margin."
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
    compile_blocks: bool = Field(
        False,
        description="On CUDA, compile the model's blocks: a minute at the start, faster updates.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of data order, adapters and dropout.")
    save_dtype: Literal["fp32", "base"] = Field(
        "fp32",
        description="Format of saved weights; 'base', as the base model's, may undo training.",
    )
    log_steps: int = Field(1, ge=1, description="Weight updates between two lines of the log.")
    report_to: tuple[Reporter, ...] = Field(
        (), description="Services that also follow the run, as TRL does it; MLflow always does."
    )

    @property
    def world(self) -> int:
        """Processes of all machines together."""
        return self.nodes * self.ranks

    @model_validator(mode="after")
    def _can_be_divided(self) -> Self:
        if self.gradient_accumulation % self.world:
            raise ValueError(
                f"gradient_accumulation {self.gradient_accumulation} cannot be divided by "
                f"{self.world} processes (nodes x ranks): an update is batch_size x "
                "gradient_accumulation pairs, of which each computes an equal share"
            )
        if self.offload != "none" and not self.zero:
            raise ValueError(f"offload {self.offload} is done by DeepSpeed: set zero to 1, 2 or 3")
        if self.offload == "all" and self.zero != 3:
            raise ValueError("offload all needs zero 3: only there are weights divided")
        if self.compile_blocks and self.zero == 3:
            raise ValueError("compile_blocks needs whole weights: set zero to 0, 1 or 2")
        return self

    @model_validator(mode="after")
    def _can_measure(self) -> Self:
        wanted = [
            f"{name} {value}"
            for name, value in (("select", self.select), ("patience", self.patience))
            if value not in ("last", None)
        ]
        if wanted and not self.validation_fraction:
            raise ValueError(
                f"{' and '.join(wanted)} needs pairs to measure on: set validation_fraction above 0"
            )
        return self


class Validation(Config):
    """The model on the held-out pairs: implicit rewards are beta * log(policy / reference)."""

    loss: float = Field(description="Mean DPO loss; log 2 = 0.693 before training.")
    margin: float = Field(description="Mean reward of chosen minus rejected; 0 before training.")
    accuracy: float = Field(
        ge=0,
        le=1,
        description="Share of pairs with a greater chosen reward; a tie counts as wrong.",
    )
    n: int = Field(ge=1, description="Held-out pairs.")


class TrainedModel(Config):
    """What a finished training made of a model, and how."""

    model_path: Path = Field(description="Folder of the trained model.")
    model: ModelRef = Field(description="The trained model: <base>-<how> @ content hash.")
    base_model: str = Field(description="Identity of the model before training.")
    inputs: str = Field(description="Fingerprint of what determines the result.")
    pairs_train: int = Field(ge=1, description="Pairs trained on.")
    pairs_validation: int = Field(ge=0, description="Pairs held out.")
    pairs_cut: int = Field(ge=0, description="Pairs left out because they are too long.")
    length_limit: int = Field(description="Most tokens: max_length or the model's window.")
    longest: int = Field(description="Tokens of the longest sequence that was used.")
    steps: int = Field(ge=1, description="Weight updates.")
    epochs: int = Field(ge=1, description="Passes over the training pairs.")
    seconds: float = Field(ge=0, description="Wall time of the process that finished the run.")
    train_loss: float = Field(description="Training loss in the last line of the log.")
    device: str = Field(description="cuda, mps or cpu.")
    precision: Precision = Field(description="Arithmetic of the steps.")
    batch_size: int = Field(ge=1, description="Pairs computed together: fewer if memory ran out.")
    saved_dtype: str = Field(description="Number format of the saved weights.")
    method: Method = Field(description="How it was trained after planning: full or lora.")
    memory: MemoryPlan = Field(description="What was chosen to fit the memory, and why.")
    resumed_from: int | None = Field(description="Step of the checkpoint it went on from, if any.")
    peak_memory_mb: int = Field(description="Peak of the process, or of the allocator on CUDA.")
    seed: int = Field(description="Seed of data order, adapters and dropout.")


class TrainingResult(TrainedModel):
    """What a finished DPO run made. Stored as training.json."""

    validation_before: Validation | None = Field(description="Held-out pairs before step 1.")
    validation_after: Validation | None = Field(description="Held-out pairs, the saved weights.")
    model_step: int = Field(description="Weight updates that the saved weights have had.")
    stopped_early: bool = Field(description="Whether patience ended it before its last epoch did.")
    verdict: str = Field(description="How it went on held-out pairs, in words.")


def batches_of_a_rank(config: TrainingConfig) -> int:
    """Return how many batches of an update each process computes."""
    return config.gradient_accumulation // config.world


def estimate_steps(config: TrainingConfig, pairs_count: int) -> int:
    """Return about how many weight updates a run will make; for dry runs.

    Which prompts are held out depends on their text, and over-long pairs are unknown here, so the
    real number (in the log's start line) can differ by a few steps.
    """
    held_out = 0
    if config.validation_fraction and pairs_count > 1:
        held_out = max(1, round(config.validation_fraction * pairs_count))
    batches = math.ceil(max(1, pairs_count - held_out) / config.batch_size)
    return config.epochs * math.ceil(batches / config.gradient_accumulation)
