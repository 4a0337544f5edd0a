"""What a line of a training log says beyond the loss, computed by hand."""

from __future__ import annotations

import datasets
import pytest

from ccai_core.throughput import Read
from ccai_core.training_metrics import mean_lengths, measured

LOGS = {
    "eval_loss": 0.5, "eval_rewards/chosen": 0.1, "eval_rewards/rejected": -0.5,
    "eval_rewards/margins": 0.6,
}  # fmt: skip


def test_kl_is_the_mean_log_ratio_of_all_answers() -> None:
    # Two pairs: four answers with 80 tokens. Log-ratios are 1 and -5 nats on average.
    line = measured(LOGS, "eval_", beta=0.1, read=Read(pairs=2, answers=80))
    assert line["kl"] == pytest.approx((1 - 5) / 2)
    assert line["kl_token"] == pytest.approx(4 * -2 / 80)
    assert (line["loss"], line["margin"]) == (0.5, 0.6)


def test_without_a_reference_there_is_no_kl() -> None:
    line = measured(LOGS, "eval_", beta=None, read=Read(pairs=2, answers=80))
    assert "kl" not in line
    assert line["reward_chosen"] == 0.1


def test_mean_lengths_are_those_of_the_answers() -> None:
    rows = [{"chosen_ids": [1, 2, 3], "rejected_ids": [1]}, {"chosen_ids": [1], "rejected_ids": []}]
    assert mean_lengths(datasets.Dataset.from_list(rows)) == {
        "chosen_tokens": 2.0,
        "rejected_tokens": 0.5,
    }
    assert mean_lengths(datasets.Dataset.from_list([{"input_ids": [1]}])) == {}
