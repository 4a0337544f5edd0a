"""DPO training in one job of two nodes with two processes each, on a real Slurm.

`benchmarks/training_on_slurm.py` strikes it in every way; here it is struck once.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.training_on_slurm import Run, difference, made
from ccai_core.training_config import TrainingConfig
from tests.cluster.slurm_lab import SlurmLab


@pytest.mark.slow
def test_four_processes_go_on_after_one_was_killed(on_lab: SlurmLab, tmp_path: Path) -> None:
    model, pairs = made(tmp_path)
    config = TrainingConfig(
        epochs=4, batch_size=1, gradient_accumulation=4, learning_rate=1e-4, save_steps=5,
        validation_fraction=0, nodes=2, ranks=2, zero=3,
    )  # fmt: skip

    def run(name: str, *blows: str) -> Run:
        return Run(name, on_lab, tmp_path, config, model, pairs, list(blows), random.Random(1))

    struck = run("struck", "kill")
    expected, found = run("peace").go(), struck.go()
    assert not struck.blows, "it fell"
    assert struck.lost == []
    assert difference(expected.model_path, found.model_path) <= 1e-6
