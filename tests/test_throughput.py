"""How fast, and how much of the device: counted by hand on a tiny model."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ccai_core import throughput
from ccai_core.pair_rows import add_pair_head, row_of
from ccai_core.throughput import Meter, Read, ceiling, data_sheet, work_of


@pytest.fixture
def model() -> Any:
    config = LlamaConfig(
        vocab_size=50, hidden_size=8, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def test_of_a_row_the_prompt_counts_once_and_nothing_is_padding(model: Any) -> None:
    add_pair_head(model)
    meter = Meter(model)
    model.train()
    model(rows=[row_of([1, 2, 3], [4, 5], [6, 7]), row_of([1], [2, 3, 4, 5], [6, 7])])
    read, _ = meter.take()
    # 3 + 2 + 2 and the prompt's last token again; 1 + 4 + 2 and 1.
    assert (read.pairs, read.tokens, read.answers) == (2, 8 + 8, 4 + 6)
    assert read.padding == 0
    assert read.seen == 8 * 5 + 8 * 4
    assert meter.take()[0] == Read()


def test_of_a_padded_batch_padding_is_told_apart(model: Any) -> None:
    meter = Meter(model)
    model.eval()
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    labels = torch.tensor([[-100, -100, 3, 4], [-100, 2, -100, -100]])
    with torch.no_grad():
        model(input_ids=mask, attention_mask=mask, labels=labels)
    assert meter.take(training=True)[0] == Read()
    read, _ = meter.take(training=False)
    assert (read.pairs, read.tokens, read.places, read.answers) == (1, 6, 8, 3)
    assert read.padding == 0.25
    assert read.seen == 16 + 4


def test_flops_are_six_for_a_weight_and_token_and_four_for_one_that_is_not_trained(
    model: Any,
) -> None:
    body = sum(p.numel() for name, p in model.named_parameters() if name.startswith("model.layers"))
    body += 8  # the last norm
    read = Read(pairs=1, tokens=10, places=10, answers=4, seen=70)
    attention = 12 * 2 * 8 * 70
    assert work_of(model).flops(read) == 6 * body * 10 + 6 * 50 * 8 * 4 + attention
    model.requires_grad_(False)
    assert work_of(model).flops(read) == 4 * body * 10 + 4 * 50 * 8 * 4 + attention


def test_a_weight_that_zero_3_has_divided_counts_whole() -> None:
    divided = SimpleNamespace(ds_numel=1000, numel=lambda: 0)
    assert throughput._size([divided]) == 1000


def test_the_clock_counts_training_alone(model: Any) -> None:
    meter = Meter(model)
    meter.go()
    time.sleep(0.02)
    meter.stop()
    time.sleep(0.2)  # an evaluation
    meter.go()
    time.sleep(0.02)
    assert 0.04 <= meter.take()[1] < 0.2
    assert meter.take()[1] < 0.02


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H200", 989),
        ("NVIDIA H100 PCIe", 756), ("NVIDIA A10", 125), ("NVIDIA L40S", 362), ("Tesla T4", 65),
        ("NVIDIA A10G", None), ("NVIDIA RTX A4000", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
    ],
)  # fmt: skip
def test_gpus_are_known_by_their_names(name: str, tflops: int | None) -> None:
    assert data_sheet(name) == (None if tflops is None else tflops * 1e12)


def test_a_cpu_is_measured_and_training_does_not_notice() -> None:
    before = torch.get_rng_state()
    found = ceiling("cpu", "fp32")
    assert found.source == "measured"
    assert 1e8 < found.flops < 1e14
    assert torch.equal(torch.get_rng_state(), before)
