"""DeepSpeed's configuration, made from ours: nobody writes its JSON by hand.

    deepspeed_settings(TrainingConfig(zero=2, ranks=4), device="cuda", precision="bf16")

Keys and their meaning: DeepSpeed's configuration reference; ZeRO's stages: Rajbhandari et al. 2020
(arXiv 1910.02054), offloading: Ren et al. 2021 (arXiv 2101.06840).
"""

from __future__ import annotations

from typing import Any

from ccai_core.training_config import TrainingConfig, batches_of_a_rank

# What gradients are cut to, as in the trainer without DeepSpeed.
_LARGEST_NORM = 1.0
_BUCKET = 50_000_000


def deepspeed_settings(config: TrainingConfig, device: str, precision: str) -> dict[str, Any]:
    """Return the configuration; empty where DeepSpeed is not used (zero 0)."""
    if not config.zero:
        return {}
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": config.batch_size,
        "gradient_accumulation_steps": batches_of_a_rank(config),
        "train_batch_size": config.batch_size * config.gradient_accumulation,
        "gradient_clipping": _LARGEST_NORM,
        "bf16": {"enabled": precision == "bf16"},
        # Loss scaling starts where it seldom has to come down: steps that overflow are lost.
        "fp16": {"enabled": precision == "fp16", "initial_scale_power": 12},
        "zero_optimization": _zero(config, device),
        # Never: it prints to where the run's own words are.
        "steps_per_print": 1_000_000_000,
    }
    if config.offload != "none":
        # Its own AdamW, vectorised for the host's processors; else it is torch's, made elsewhere.
        settings["optimizer"] = {
            "type": "AdamW",
            "params": {
                "lr": config.learning_rate, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0,
            },
        }  # fmt: skip
    return settings


def _zero(config: TrainingConfig, device: str) -> dict[str, Any]:
    on_host = {"device": "cpu", "pin_memory": device == "cuda"}
    settings: dict[str, Any] = {
        "stage": config.zero,
        "overlap_comm": device == "cuda",
        "contiguous_gradients": True,
        "reduce_bucket_size": _BUCKET,
        "allgather_bucket_size": _BUCKET,
    }
    if config.zero == 3:
        settings |= {
            "stage3_prefetch_bucket_size": _BUCKET,
            # Small weights, of norms for instance, are not worth gathering each time.
            "stage3_param_persistence_threshold": 100_000,
            # The whole model is put together by us, in fp32, and not with each checkpoint.
            "stage3_gather_16bit_weights_on_model_save": False,
        }
    if config.offload != "none":
        settings["offload_optimizer"] = on_host
    if config.offload == "all":
        settings["offload_param"] = on_host
    return settings
