"""What every trainer of TRL's does here beside its own work: no NaN, whole checkpoints, no calls.

class Trainer(GuardedTrainer, SFTTrainer):
    ...
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from ccai_core import checkpoints
from ccai_core.errors import ModelError
from ccai_core.ranks import this_rank


class GuardedTrainer(Trainer):  # type: ignore[misc]
    """Stops at a loss or weight that is no number, and writes checkpoints with all its processes.

    To be named before the trainer that it guards.
    """

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
            # Of a weight that ZeRO-3 has divided, each process sees its own part.
            part = getattr(weight, "ds_tensor", weight)
            if weight.requires_grad and not torch.isfinite(part).all():
                raise ModelError(self._diverged(f"weights of {name} are inf or nan"))
        super()._save_checkpoint(model, trial)
        # Complete only once every process has written its part; then the first seals it.
        this_rank().gather(None)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights of a checkpoint; DeepSpeed's own files, written later, hold them."""
        if not self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no model card: TRL would put one beside the checkpoints at every save."""

    def _send_telemetry(self) -> None:
        """Send nothing: TRL reports every trainer to the hub unless that is switched off."""
