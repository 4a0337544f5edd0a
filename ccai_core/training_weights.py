"""The weights that a training starts from: fp32, but half precision for maps that stay as they are.

With adapters the linear maps of the base model are read and never changed. Mixed precision rounds
them anew for every product, so keeping them rounded gives the same numbers from a third of the
memory (tests/test_training_weights.py). Embedding, norms and adapters stay fp32, and with them the
residual stream. Merging wants the unrounded weights: `ccai_core.whole_model` reads them again.

With compile_blocks, torch.compile fuses what a block does beside its matrix products.

    model = weights_to_train(run)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ccai_core.models import Device, load_model, pick_dtype

if TYPE_CHECKING:
    from ccai_core.models import Precision
    from ccai_core.training_run import PreparedRun


def weights_to_train(run: PreparedRun) -> Any:
    """Load the model that a run trains, on its device.

    Raises:
        ModelError: its folder is damaged, or it does not fit.
    """
    # DeepSpeed rounds all weights, and takes its share to the device itself.
    device = "cpu" if run.config.zero else run.device
    half = frozen_in_half(run)
    model, _ = load_model(run.model, "cpu" if half else cast(Device, device), "fp32")
    if half:
        round_linear_maps(model, run.precision)
    if run.config.compile_blocks:
        if run.device == "cuda":
            compile_blocks(model)
        else:
            run.tell(f"compile_blocks is for CUDA: on {run.device} nothing is compiled.")
    return model.to(device)


def frozen_in_half(run: PreparedRun) -> bool:
    """Whether a run keeps the linear maps of its base model in half precision."""
    return run.plan.method == "lora" and run.precision != "fp32" and not run.config.zero


def round_linear_maps(model: Any, precision: Precision) -> None:
    """Round the weights of all linear maps but an output layer that is the embedding."""
    import torch

    embedding = model.get_input_embeddings().weight
    dtype = pick_dtype(precision, "cpu")
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.weight is not embedding:
            module.weight.data = module.weight.data.to(dtype)


def compile_blocks(model: Any) -> None:
    """Let torch.compile translate each transformer block, at its first use, for rows of any length.

    The weights' names stay as they are, and adapters may still be put into the blocks.
    """
    kinds = set(model._no_split_modules or ())
    for module in model.modules():
        if type(module).__name__ in kinds:
            module.compile(dynamic=True)
