"""Pairs as rows: the very numbers that TRL computes from padded sequences, from fewer tokens."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from ccai_core.pair_rows import PairCollator, ReadsRows, add_pair_head, packs, row_of, why_not
from ccai_core.pair_trainer import _simpo
from tests.tiny_model import save_tiny_model

Examples = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def make(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DPOTrainer]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [{"prompt": "hi", "chosen": "a", "rejected": "b"}] * 2

    def trainer(attention: str = "sdpa", **settings: Any) -> DPOTrainer:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation=attention
        )
        return DPOTrainer(
            model=model,
            args=DPOConfig(
                output_dir=str(tmp_path_factory.mktemp("out")), precompute_ref_log_probs=True,
                use_cpu=True, bf16=False, report_to=[], max_length=None, disable_tqdm=True,
                **settings,
            ),
            processing_class=tokenizer,
            train_dataset=datasets.Dataset.from_list(rows),
        )  # fmt: skip

    return trainer


def examples(rng: random.Random, pairs: int | None = None) -> Examples:
    """Pairs of any lengths; references near what the model gives, as in training."""

    def ids(most: int) -> list[int]:
        return [rng.randrange(3, 300) for _ in range(rng.randint(1, most))]

    return [
        {
            "prompt_ids": ids(40), "chosen_ids": ids(60), "rejected_ids": ids(60),
            "ref_chosen_logps": -rng.uniform(0, 9), "ref_rejected_logps": -rng.uniform(0, 9),
        }
        for _ in range(pairs or rng.randint(1, 6))
    ]  # fmt: skip


def losses(
    padded: DPOTrainer, rows: DPOTrainer, batch: Examples
) -> tuple[torch.Tensor, torch.Tensor]:
    """TRL's loss of a batch, and ours, with gradients in both models."""
    for each in (padded, rows):
        each.model.zero_grad()
    theirs = padded._compute_loss(padded.model, DataCollatorForPreference(0)(batch), False)
    inputs = PairCollator(0)(batch)
    laid_out = inputs.pop("rows")
    ours = rows._compute_loss(ReadsRows(rows.model, laid_out), inputs, False)
    theirs.backward()
    ours.backward()
    return theirs, ours


def gradient_difference(padded: DPOTrainer, rows: DPOTrainer) -> float:
    pairs = zip(padded.model.parameters(), rows.model.parameters(), strict=True)
    return max(float((a.grad - b.grad).norm() / a.grad.norm().clamp(min=1e-9)) for a, b in pairs)


@pytest.mark.parametrize(
    ("attention", "packed", "batches"),
    [("sdpa", False, 200), ("sdpa", True, 60), ("eager", False, 20), ("eager", True, 20)],
)
def test_loss_and_gradients_of_two_hundred_batches_are_those_of_trl(
    make: Callable[..., DPOTrainer], attention: str, packed: bool, batches: int
) -> None:
    # A beta at which a difference of log-probabilities is not lost in a loss of nearly zero.
    padded, rows = (make(attention, beta=0.01) for _ in range(2))
    add_pair_head(rows.model, packed)
    rng = random.Random(attention)
    for _ in range(batches):
        theirs, ours = losses(padded, rows, examples(rng))
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
        assert gradient_difference(padded, rows) < 1e-4


@pytest.mark.parametrize(
    "settings",
    [{"loss_type": ["ipo"]}, {"loss_type": ["robust"], "label_smoothing": 0.1}, {"ld_alpha": 0.5}],
    ids=["ipo", "robust", "length-desensitised"],
)
def test_every_loss_of_trl_reads_rows(
    make: Callable[..., DPOTrainer], settings: dict[str, Any]
) -> None:
    padded, rows = (make(beta=0.01, **settings) for _ in range(2))
    add_pair_head(rows.model)
    theirs, ours = losses(padded, rows, examples(random.Random(1), pairs=5))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert gradient_difference(padded, rows) < 1e-4


def test_an_answer_does_not_see_the_other_one(make: Callable[..., DPOTrainer]) -> None:
    trainer = make()
    add_pair_head(trainer.model)
    prompt, chosen = [5, 6, 7], [8, 9, 10, 11]
    with torch.no_grad():
        (one,) = trainer.model(rows=[row_of(prompt, chosen, [12, 13])])
        (other,) = trainer.model(rows=[row_of(prompt, chosen, [200, 201, 202])])
    assert torch.allclose(one[:4], other[:4], atol=1e-6)
    assert not torch.allclose(one[4:6], other[4:6], atol=1e-3)


def test_pairs_of_one_row_do_not_see_each_other(make: Callable[..., DPOTrainer]) -> None:
    trainer = make()
    add_pair_head(trainer.model, packed=True)
    mine, other = row_of([5, 6], [8, 9], [10]), row_of([7, 7], [12], [13, 14])
    with torch.no_grad():
        alone, between = trainer.model(rows=[mine])[0], trainer.model(rows=[other, mine, other])[1]
    assert torch.allclose(alone, between, atol=1e-6)


def test_rows_are_packed_in_order_up_to_a_number_of_tokens() -> None:
    rows = [row_of([1, 2], [3] * answer, [4]) for answer in (3, 4, 20, 2)]
    assert [[len(r["targets"]) for r in each] for each in packs(rows, 20)] == [[4, 5], [21], [3]]


def test_a_row_holds_the_prompt_once_and_no_padding() -> None:
    row = row_of(list(range(10)), [20, 21], [30, 31, 32])
    assert row["input_ids"].shape == (1, 10 + 2 + 3 + 1)
    assert row["targets"].tolist() == [20, 21, 30, 31, 32]
    ids = row["input_ids"][0]
    positions = row["position_ids"][0]
    # Each answer token is predicted from the place before its own in its sequence.
    for place, target in zip(row["predicts"], row["targets"], strict=True):
        assert ids[place + 1] == target
        assert positions[place + 1] == positions[place] + 1


def test_models_that_rows_would_read_wrongly_are_left_to_trl(
    make: Callable[..., DPOTrainer],
) -> None:
    model = make().model
    assert why_not(model) is None
    model.config.layer_types = ["full_attention", "sliding_attention"]
    assert "sliding_attention" in str(why_not(model))
    model.config.layer_types = None
    model.config.final_logit_softcapping = 30.0
    assert "final_logit_softcapping" in str(why_not(model))


def test_simpo_is_what_its_paper_says(make: Callable[..., DPOTrainer]) -> None:
    gamma, beta = 0.7, 2.0
    trainer = make(beta=beta, loss_type=["sigmoid_norm"])
    add_pair_head(trainer.model)
    batch = examples(random.Random(2), pairs=3)
    told = _simpo(datasets.Dataset.from_list(batch), gamma)
    for each, (chosen, rejected) in zip(batch, told, strict=True):
        each |= {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    inputs = PairCollator(0)(batch)
    rows = inputs.pop("rows")
    with torch.no_grad():
        loss = trainer._compute_loss(ReadsRows(trainer.model, rows), inputs, False)
        found = trainer.model(rows=rows)
    expected = []
    for each, log_probs in zip(batch, found, strict=True):
        chosen, rejected = log_probs.split([len(each["chosen_ids"]), len(each["rejected_ids"])])
        apart = beta * (chosen.mean() - rejected.mean() - gamma)
        expected.append(-torch.nn.functional.logsigmoid(apart))
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)
