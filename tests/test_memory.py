"""The memory planner: what it reads, what it estimates, and what it chooses to make a run fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ccai_core.errors import ModelError
from ccai_core.memory import (
    MemoryPlan,
    Method,
    ModelShape,
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


# Tokens of the pairs that peaks were measured with.
ROW = 248


def choose(**settings: object) -> MemoryPlan:
    config = TrainingConfig.model_validate({"batch_size": 4, **settings})
    return plan(SMOLLM, config, ROW, "fp32", "cpu")


def total(method: Method = "full", checkpointing: bool = False, precision: str = "fp32") -> int:
    config = TrainingConfig(batch_size=4)
    return estimate(SMOLLM, config, ROW, precision, "cpu", method, checkpointing).total


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
    assert total("full", True) < total("full")
    assert total("lora", True) < total("full", True)
    assert total(precision="bf16") < total()


def test_without_a_limit_the_run_goes_as_asked() -> None:
    chosen = choose()
    assert (chosen.method, chosen.gradient_checkpointing) == ("full", False)
    assert "no max_memory_mb" in chosen.reason


@pytest.mark.parametrize(
    ("limit", "method", "checkpointing"),
    [(20_000, "full", False), (4000, "full", True), (2800, "lora", True)],
)
def test_takes_the_first_way_that_fits(limit: int, method: str, checkpointing: bool) -> None:
    chosen = choose(max_memory_mb=limit)
    assert (chosen.method, chosen.gradient_checkpointing) == (method, checkpointing)
    assert chosen.total_mb <= limit
    assert f"of {limit} MB" in chosen.reason


def test_the_boundary_itself_fits() -> None:
    assert choose(max_memory_mb=total()).gradient_checkpointing is False
    assert choose(max_memory_mb=total() - 1).gradient_checkpointing is True


def test_what_was_set_explicitly_is_kept() -> None:
    with pytest.raises(ModelError, match="does not fit"):
        choose(max_memory_mb=4000, gradient_checkpointing=False)
    assert choose(gradient_checkpointing=True).gradient_checkpointing is True
    assert choose(max_memory_mb=4500, method="lora").method == "lora"


def test_falling_back_to_lora_says_what_that_means() -> None:
    reason = choose(max_memory_mb=2800).reason
    assert "LoRA replaces full training" in reason
    assert "learning_rate 1e-06" in reason


def test_when_nothing_fits_the_error_names_the_smallest_estimate() -> None:
    least = total("lora", True)
    with pytest.raises(ModelError, match=rf"{least} MB.*batch_size.*max_length"):
        choose(max_memory_mb=100)
    assert choose(max_memory_mb=least).total_mb == least


def test_memory_errors_are_told_from_others() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_peak_is_a_plausible_number_of_megabytes() -> None:
    assert 50 < peak_mb("cpu") < 200_000
