"""Frozen maps in half precision: the numbers of autocast, and a model that is merged unrounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.attention.flex_attention import create_block_mask, create_mask
from transformers import AutoModelForCausalLM

from ccai_core import training_weights
from ccai_core.dpo import TrainingConfig, TrainingResult, train
from ccai_core.memory_estimate import estimate, read_shape
from ccai_core.models import resolve_model
from ccai_core.pair_rows import _mask, _sees, pack, row_of
from ccai_core.training_weights import round_linear_maps
from tests.tiny_model import save_tiny_model
from tests.tiny_pairs import pair


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-chat")


def test_rounded_maps_give_what_autocast_gives(folder: Path) -> None:
    whole, rounded = (AutoModelForCausalLM.from_pretrained(folder) for _ in range(2))
    round_linear_maps(rounded, "bf16")
    maps = {name: weight.dtype for name, weight in rounded.named_parameters()}
    assert maps["model.layers.0.mlp.up_proj.weight"] == torch.bfloat16
    assert maps["model.embed_tokens.weight"] == maps["model.norm.weight"] == torch.float32
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(whole(ids).logits, rounded(ids).logits)


def test_an_output_layer_that_is_the_embedding_stays_whole(folder: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    model.lm_head.weight = model.model.embed_tokens.weight
    round_linear_maps(model, "bf16")
    assert model.lm_head.weight.dtype == torch.float32


def test_adapters_are_merged_into_the_unrounded_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(folder, tmp_path / "whole")
    monkeypatch.setattr(training_weights, "frozen_in_half", lambda run: True)
    monkeypatch.setattr("ccai_core.whole_model.frozen_in_half", lambda run: True)
    put_together = trained(folder, tmp_path / "put-together")
    before, after = (load_file(r.model_path / "model.safetensors") for r in (whole, put_together))
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-7) for name in before)
    assert after["model.layers.0.mlp.up_proj.weight"].dtype == torch.float32


def test_the_weights_are_not_hashed_for_a_cache_that_is_not_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashed(module: Any) -> str:
        raise AssertionError("all weights were read")

    monkeypatch.setattr("trl.trainer.dpo_trainer.hash_module", hashed)
    assert trained(folder, tmp_path / "run").steps == 2


def test_compiling_is_for_cuda_and_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(folder, tmp_path / "run", compile_blocks=True)
    assert "compile_blocks is for CUDA" in capsys.readouterr().out


def test_compiled_blocks_need_whole_weights() -> None:
    with pytest.raises(ValueError, match="set zero to 0, 1 or 2"):
        TrainingConfig(compile_blocks=True, zero=3)


def test_frozen_maps_are_estimated_at_two_bytes(folder: Path) -> None:
    shape = read_shape(folder)
    big = shape.model_copy(update={"parameters": 7_000_000_000, "vocabulary": 1000})
    config = TrainingConfig(method="lora", lora_rank=1)
    whole, half = (estimate(big, config, 100, kind, "cuda").weights for kind in ("fp32", "bf16"))
    assert half == pytest.approx(whole / 2, rel=0.01)


def test_flex_attention_is_told_the_same_mask(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    pairs = [row_of([1, 2, 3], [4] * 250, [5] * 250), row_of([1] * 270, [2] * 60, [3] * 60)]
    branch = pack(pairs)["branch"]
    length = branch.shape[-1]
    dense = _mask(model, branch)
    assert torch.equal(create_mask(_sees(branch[0]), None, None, length, length, "cpu"), dense)
    # Percent of the blocks of 128 by 128 that are skipped; of one text's 7 by 7 it would be 43.
    blocks = create_block_mask(_sees(branch[0]), None, None, length, length, "cpu")
    assert blocks.sparsity() > 55


def trained(folder: Path, out: Path, **changes: Any) -> TrainingResult:
    pairs = out.parent / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(pair(i)) + "\n" for i in range(8)), encoding="utf-8")
    config = TrainingConfig(
        method="lora", lora_dropout=0, epochs=1, batch_size=4, gradient_accumulation=1,
        learning_rate=1e-3, validation_fraction=0,
    )  # fmt: skip
    return train(
        config.model_copy(update=changes), resolve_model(str(folder)), pairs, out, device="cpu"
    )
