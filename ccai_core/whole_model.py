"""The trained model in one piece, wherever its weights are: in one process, or divided over many.

model = whole_model(run, trainer)       # None in all processes but the first
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ccai_core.errors import ModelError
from ccai_core.models import load_model
from ccai_core.training_weights import frozen_in_half

if TYPE_CHECKING:
    from ccai_core.pair_trainer import Trainer
    from ccai_core.training_run import PreparedRun


def whole_model(run: PreparedRun, trainer: Trainer) -> Any:
    """Return the trained model in fp32, adapters merged. All processes have to call it.

    Raises:
        ModelError: what was trained does not fit the model that it was trained from.
    """
    if run.ranks.world == 1 and not run.config.zero and not frozen_in_half(run):
        model = trainer.model
        return model.merge_and_unload() if run.plan.method == "lora" else model
    trained = _trained(run, trainer)
    return _put_together(run, trained) if run.ranks.first else None


def _trained(run: PreparedRun, trainer: Trainer) -> dict[str, Any]:
    """Return the trained weights in fp32, in the first process; the others help to gather them."""
    found = {}
    for name, weight in trainer.model.named_parameters():
        if not weight.requires_grad:
            continue
        full = _of_the_optimizer(weight) if run.config.zero else weight
        if run.ranks.first:
            found[name] = full.detach().float().cpu().clone()
    return found


def _of_the_optimizer(weight: Any) -> Any:
    """Return DeepSpeed's own copy in fp32: with bf16 the model's is rounded."""
    from deepspeed.utils import safe_get_full_fp32_param

    return safe_get_full_fp32_param(weight)


def _put_together(run: PreparedRun, trained: dict[str, Any]) -> Any:
    from peft import get_peft_model
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    from ccai_core.dpo_trainer import lora

    # Else ZeRO-3 would divide this one too, and wait for the other processes.
    unset_hf_deepspeed_config()
    model, _ = load_model(run.model, "cpu", "fp32")
    if run.plan.method == "lora":
        model = get_peft_model(model, lora(run.config))
    unknown = model.load_state_dict(trained, strict=False).unexpected_keys
    if unknown:
        raise ModelError(
            f"{run.model.name}: {len(unknown)} trained weights are none of the model's (first: "
            f"{unknown[0]}); nothing was saved. The checkpoints are in {run.folder.checkpoints}."
        )
    return model.merge_and_unload() if run.plan.method == "lora" else model
