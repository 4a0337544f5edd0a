"""The memory planner: what it reads, what it estimates, and what it chooses to make a run fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ccai_core.errors import ModelError
from ccai_core.memory import (
    MemoryEstimate,
    MemoryPlan,
    ModelShape,
    as_planned,
    estimate,
    is_out_of_memory,
    peak_mb,
    plan,
    read_shape,
)
from ccai_core.training_config import TrainingConfig

# SmolLM2-135M, as read_shape reads it.
SMOLLM = ModelShape(
    parameters=134_515_008,
    layers=30,
    hidden=576,
    vocabulary=49_152,
    context=8192,
    linear_ends=305_280,
    linear_outputs=155_520,
    dtype="F32",
)


# Qwen2.5-7B-Instruct, from its published configuration.
QWEN = ModelShape(
    parameters=7_615_616_512,
    layers=28,
    hidden=3584,
    vocabulary=152_064,
    context=32_768,
    linear_ends=2_523_136,
    linear_outputs=1_390_592,
    dtype="BF16",
)
SMALL_OR_LARGE = {"cpu": SMOLLM, "cuda": QWEN}

# Tokens of the pairs that peaks were measured with.
ROW = 248


def choose(**settings: object) -> MemoryPlan:
    config = TrainingConfig.model_validate({"batch_size": 4, **settings})
    return plan(SMOLLM, config, ROW, "fp32", "cpu")


def need(precision: str = "fp32", device: str = "cpu", **settings: object) -> MemoryEstimate:
    config = TrainingConfig.model_validate({"batch_size": 4, **settings})
    return estimate(SMALL_OR_LARGE[device], config, ROW, precision, device)


def total(**settings: object) -> int:
    return need(**settings).total  # type: ignore[arg-type]


def test_reads_the_shape_from_the_files_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"num_hidden_layers": 1, "hidden_size": 4, "vocab_size": 10})
    )
    tensors = {
        "model.embed_tokens.weight": torch.zeros(10, 4, dtype=torch.bfloat16),
        "model.layers.0.mlp.up_proj.weight": torch.zeros(8, 4, dtype=torch.bfloat16),
        "model.norm.weight": torch.zeros(4),
    }
    save_file(tensors, str(tmp_path / "model.safetensors"))
    shape = read_shape(tmp_path)
    assert (shape.parameters, shape.linear_ends, shape.linear_outputs) == (76, 12, 8)
    assert (shape.layers, shape.dtype, shape.context) == (1, "BF16", 2048)


@pytest.mark.parametrize("damage", ["truncated", "no config", "not a language model"])
def test_a_damaged_model_is_an_error(tmp_path: Path, damage: str) -> None:
    config = {"num_hidden_layers": 1, "hidden_size": 4, "vocab_size": 10}
    if damage == "not a language model":
        del config["vocab_size"]
    if damage != "no config":
        (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"w": torch.zeros(4, 4)}, str(tmp_path / "model.safetensors"))
    if damage == "truncated":
        (tmp_path / "model.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(ModelError):
        read_shape(tmp_path)


# Peak resident set in MB of real runs on CPU: benchmarks/training_memory.py, 2026-11-25.
@pytest.mark.parametrize(
    ("settings", "measured"),
    [
        ({"batch_size": 1}, 3042),
        ({"batch_size": 2}, 3649),
        ({"batch_size": 4}, 4564),
        ({"batch_size": 4, "gradient_checkpointing": True}, 3398),
        ({"batch_size": 1, "method": "lora"}, 2193),
        ({"batch_size": 4, "method": "lora"}, 4580),
        ({"batch_size": 4, "method": "lora", "lora_dropout": 0}, 3699),
        ({"batch_size": 4, "method": "lora", "gradient_checkpointing": True}, 2524),
        ({"batch_size": 8, "method": "lora", "gradient_checkpointing": True}, 2854),
    ],
)
def test_estimates_are_within_15_percent_of_what_was_measured(
    settings: dict[str, object], measured: int
) -> None:
    assert choose(**settings).total_mb == pytest.approx(measured, rel=0.15)


def test_lighter_ways_are_estimated_lighter() -> None:
    assert total(gradient_checkpointing=True) < total()
    assert total(batch_size=2) < total()
    assert total(method="lora", gradient_checkpointing=True) < total(gradient_checkpointing=True)
    assert total(precision="bf16") < total()


def test_without_a_limit_the_run_goes_as_asked() -> None:
    chosen = choose()
    assert (chosen.method, chosen.gradient_checkpointing, chosen.batch_size) == ("full", False, 4)
    assert "no max_memory_mb" in chosen.reason


@pytest.mark.parametrize(
    ("limit", "way"),
    [
        (20_000, ("full", False, 4, 4)),
        (4000, ("full", False, 2, 8)),
        (3350, ("full", False, 1, 16)),
        (2500, ("lora", False, 1, 16)),
    ],
)
def test_takes_the_first_way_that_fits(limit: int, way: tuple[object, ...]) -> None:
    chosen = choose(max_memory_mb=limit)
    assert (
        chosen.method, chosen.gradient_checkpointing, chosen.batch_size,
        chosen.gradient_accumulation,
    ) == way  # fmt: skip
    assert chosen.total_mb <= limit
    assert f"of {limit} MB" in chosen.reason


def test_long_pairs_are_recomputed_before_weights_stay_untrained() -> None:
    config = TrainingConfig(max_memory_mb=6000)
    chosen = plan(SMOLLM, config, 2000, "fp32", "cpu")
    assert (chosen.method, chosen.gradient_checkpointing, chosen.batch_size) == ("full", True, 1)


def test_the_boundary_itself_fits() -> None:
    assert choose(max_memory_mb=total()).batch_size == 4
    assert choose(max_memory_mb=total() - 1).batch_size == 2


def test_an_update_is_the_same_pairs_whatever_is_planned() -> None:
    config = TrainingConfig(batch_size=6, gradient_accumulation=5, max_memory_mb=total())
    planned = as_planned(config, plan(SMOLLM, config, 2 * ROW, "fp32", "cpu"))
    assert planned.batch_size < config.batch_size
    assert planned.batch_size * planned.gradient_accumulation == 30


def test_what_was_set_explicitly_is_kept() -> None:
    # Recomputing alone would do: it is not switched on against the user's word.
    config = TrainingConfig(max_memory_mb=6000)
    kept = config.model_copy(update={"gradient_checkpointing": False})
    assert plan(SMOLLM, config, 2000, "fp32", "cpu").gradient_checkpointing is True
    with pytest.raises(ModelError, match="does not fit"):
        plan(SMOLLM, kept, 2000, "fp32", "cpu")
    assert choose(gradient_checkpointing=True).gradient_checkpointing is True
    assert choose(max_memory_mb=4500, method="lora").method == "lora"


def test_falling_back_to_lora_says_what_that_means() -> None:
    reason = choose(max_memory_mb=2500).reason
    assert "LoRA replaces full training" in reason
    assert "learning_rate 1e-06" in reason


def test_when_nothing_fits_the_error_names_the_lightest_way() -> None:
    light = TrainingConfig(method="lora", gradient_checkpointing=True)
    least = estimate(SMOLLM, light, 2000, "fp32", "cpu").total
    says = rf"lora, batch_size 1, with gradient checkpointing, is estimated at {least} MB"
    with pytest.raises(ModelError, match=rf"{says}.*max_memory_mb to {least}.*max_length"):
        plan(SMOLLM, TrainingConfig(batch_size=4, max_memory_mb=100), 2000, "fp32", "cpu")
    fitting = TrainingConfig(batch_size=4, max_memory_mb=least)
    assert plan(SMOLLM, fitting, 2000, "fp32", "cpu").total_mb == least


# --- many GPUs, and the host's memory -------------------------------------------------------------

GIGABYTE = 1024


def divided(zero: int, ranks: int = 8, **settings: object) -> MemoryEstimate:
    return need(
        "bf16", "cuda", batch_size=1, gradient_accumulation=ranks, zero=zero, ranks=ranks,
        **settings,
    )  # fmt: skip


def test_each_stage_divides_what_the_paper_says() -> None:
    # Section 5 of Rajbhandari et al. 2020: 2 bytes a weight, 2 a gradient, 12 of states.
    whole = QWEN.parameters / 2**20
    one, two, three = (divided(stage) for stage in (1, 2, 3))
    assert (one.weights, one.gradients) == (round(2 * whole), round(2 * whole))
    assert one.optimizer == two.optimizer == three.optimizer == round(12 * whole / 8)
    assert (two.weights, two.gradients) == (one.weights, round(2 * whole / 8))
    # Divided, but for what is gathered to compute with.
    assert 2 * whole / 8 < three.weights < 2 * whole / 8 + 3 * GIGABYTE
    assert divided(3, ranks=16).total < three.total < two.total < one.total


def test_processes_that_share_nothing_hold_everything() -> None:
    alone, beside = (need("bf16", "cuda", gradient_accumulation=8, ranks=ranks) for ranks in (1, 8))
    assert beside.optimizer == alone.optimizer
    assert beside.total > alone.total


def test_what_is_offloaded_is_not_on_the_device() -> None:
    states, everything = divided(3, offload="optimizer"), divided(3, offload="all")
    assert (states.optimizer, states.gradients, everything.optimizer) == (0, 0, 0)
    assert everything.weights < states.weights < divided(3).weights + 1


def on_one_gpu(gigabytes: int, **settings: object) -> MemoryPlan:
    config = TrainingConfig.model_validate(
        {"batch_size": 2, "max_memory_mb": gigabytes * GIGABYTE, **settings}
    )
    return plan(QWEN, config, 1000, "bf16", "cuda")


@pytest.mark.parametrize(
    ("gigabytes", "way"),
    [
        (180, ("full", 0, "none")),
        (78, ("full", 2, "optimizer")),
        (14, ("full", 3, "all")),
    ],
)
def test_on_cuda_the_host_helps_before_weights_stay_untrained(
    gigabytes: int, way: tuple[object, ...]
) -> None:
    chosen = on_one_gpu(gigabytes)
    assert (chosen.method, chosen.zero, chosen.offload) == way
    assert (chosen.host_mb > 0) == (chosen.offload != "none")
    config = TrainingConfig(batch_size=2, max_memory_mb=gigabytes * GIGABYTE)
    # What was planned is what the settings allow.
    TrainingConfig.model_validate(as_planned(config, chosen).model_dump())


def test_what_is_offloaded_stays_offloaded() -> None:
    chosen = on_one_gpu(400, zero=3, offload="optimizer")
    assert (chosen.zero, chosen.offload) == (3, "optimizer")


def test_processes_that_share_nothing_are_told_that_they_could() -> None:
    config = TrainingConfig(ranks=4, gradient_accumulation=4, max_memory_mb=2000)
    with pytest.raises(ModelError, match=r"for each of 4 processes.*set zero to 3"):
        plan(QWEN, config, 1000, "bf16", "cuda")


def test_elsewhere_there_is_no_host_to_offload_to() -> None:
    with pytest.raises(ModelError, match="the lightest way, lora, batch_size 1"):
        choose(max_memory_mb=10)


def test_memory_errors_are_told_from_others() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_peak_is_a_plausible_number_of_megabytes() -> None:
    assert 50 < peak_mb("cpu") < 200_000
