"""What only a GPU runs: packed rows with FlexAttention, half precision, frozen maps in it.

Skipped where there is none. `pytest -m gpu` runs these alone.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ccai_core.dpo import TrainingConfig, TrainingResult, train
from ccai_core.models import ModelRef, resolve_model
from ccai_core.pair_rows import add_pair_head, row_of
from ccai_core.training_log import read_log
from tests.tiny_model import save_tiny_model
from tests.tiny_pairs import pair

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]
FAST = TrainingConfig(
    epochs=3, batch_size=4, gradient_accumulation=1, learning_rate=1e-3, save_steps=4,
    validation_fraction=0.2, seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair(i)) + "\n" for i in range(40)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    folder = tmp_path_factory.mktemp("models") / "tiny-chat"
    corpus = [json.dumps(pair(i)) for i in range(20)]
    return resolve_model(str(save_tiny_model(folder, corpus, 500, spread=0.02, heads=2)))


def rows(rng: random.Random) -> list[dict[str, torch.Tensor]]:
    def ids(most: int) -> list[int]:
        return [rng.randrange(3, 300) for _ in range(rng.randint(1, most))]

    several = [row_of(ids(200), ids(300), ids(300)) for _ in range(rng.randint(1, 8))]
    return [{name: value.cuda() for name, value in row.items()} for row in several]


def test_packed_rows_on_a_gpu_are_what_each_pair_is_alone(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", heads=2)
    alone, packed = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).cuda() for _ in range(2)
    )
    add_pair_head(alone)
    add_pair_head(packed, packed=True)
    assert packed.config._attn_implementation == "flex_attention"
    rng = random.Random(0)
    for _ in range(12):
        batch = rows(rng)
        sums = []
        for model in (alone, packed):
            model.zero_grad()
            found = torch.cat(model(rows=batch))
            (found * torch.linspace(-1, 1, len(found), device="cuda")).sum().backward()  # type: ignore[no-untyped-call]
            sums.append(found.detach())
        assert torch.allclose(sums[0], sums[1], rtol=1e-5, atol=1e-4)
        for one, other in zip(alone.parameters(), packed.parameters(), strict=True):
            assert (one.grad - other.grad).norm() < 1e-4 * one.grad.norm().clamp(min=1e-6)


def trained(
    tiny: ModelRef, pairs: Path, out: Path, device: str = "cuda", **changes: Any
) -> TrainingResult:
    return train(FAST.model_copy(update=changes), tiny, pairs, out, device)


def margin(result: TrainingResult) -> float:
    assert result.validation_after is not None
    return result.validation_after.margin


def test_training_in_bf16_learns_what_training_in_fp32_on_the_cpu_does(
    tiny: ModelRef, pairs: Path, tmp_path: Path
) -> None:
    half = trained(tiny, pairs, tmp_path / "half")
    whole = trained(tiny, pairs, tmp_path / "whole", "cpu")
    assert (half.precision, whole.precision) == ("bf16", "fp32")
    assert margin(half) == pytest.approx(margin(whole), rel=0.1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "half" / "model")
    assert model.dtype == torch.float32


def test_a_training_goes_on_from_its_checkpoint(
    tiny: ModelRef, pairs: Path, tmp_path: Path
) -> None:
    at_once = trained(tiny, pairs, tmp_path / "at-once")
    trained(tiny, pairs, tmp_path / "parts")
    (tmp_path / "parts" / "training.json").unlink()
    shutil.rmtree(tmp_path / "parts" / "model")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "checkpoint-24")
    again = trained(tiny, pairs, tmp_path / "parts")
    assert again.resumed_from == 20
    assert margin(again) == pytest.approx(margin(at_once), rel=0.02)


def test_adapters_learn_the_same_beside_rounded_maps(
    tiny: ModelRef, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters: dict[str, Any] = {"method": "lora", "lora_dropout": 0.0}
    trained(tiny, pairs, tmp_path / "rounded", **adapters)
    monkeypatch.setattr("ccai_core.training_weights.frozen_in_half", lambda run: False)
    trained(tiny, pairs, tmp_path / "whole", **adapters)
    rounded, whole = (
        [
            entry["loss"]
            for entry in read_log(tmp_path / name / "training_log.jsonl")
            if "loss" in entry
        ]
        for name in ("rounded", "whole")
    )
    assert len(rounded) > 10
    assert rounded == pytest.approx(whole, rel=1e-3)
