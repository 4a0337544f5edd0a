"""A training that Slurm preempts, on a real one: it loses no update that was through."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.training_on_slurm import difference, made
from ccai_core import checkpoints
from ccai_core.dpo import train
from ccai_core.training_config import TrainingConfig
from ccai_core.training_log import read_log
from infra.jobs import Resources
from tests.cluster import slurm_functions as functions
from tests.cluster.slurm_lab import SlurmLab
from tests.cluster.workplace import Workplace, until

# Six hundred updates, and no checkpoint of their own.
CONFIG = TrainingConfig(
    epochs=60, batch_size=1, gradient_accumulation=4, learning_rate=1e-4, save_steps=10_000,
    validation_fraction=0,
)  # fmt: skip


@pytest.mark.slow
def test_a_preempted_training_goes_on_from_the_step_at_which_it_was_asked(
    on_lab: SlurmLab, tmp_path: Path
) -> None:
    work = Workplace(on_lab, tmp_path)
    model, pairs = made(tmp_path)
    expected = train(CONFIG, model, pairs, tmp_path / "peace", "cpu")
    out = tmp_path / "struck"
    # A partition whose jobs have five seconds to leave.
    low = work.profile(partition="low", memory_gb=2)
    job = work.submit(
        train, CONFIG, model, pairs, out, "cpu", key="train", cluster=low,
        resources=Resources(checkpointable=True), unwind_seconds=60.0,
    )  # fmt: skip
    until(lambda: _step(out) > 20, seconds=120)
    high = work.submit(
        functions.echo, "high", key="high", resources=Resources(nodes=4, cpus=4),
        cluster=work.profile(partition="high"),
    )  # fmt: skip
    assert high.result(poll=0.1) == "high"
    (saved,) = checkpoints.sealed(out / "checkpoints")
    left_at = _step(out)
    assert checkpoints.step_of(saved) == left_at < expected.steps
    found = job.result(poll=0.2)
    assert found.resumed_from == left_at
    assert difference(expected.model_path, found.model_path) == 0


def _step(out: Path) -> int:
    log = out / "training_log.jsonl"
    lines = read_log(log) if log.exists() else []
    return max((int(line["step"]) for line in lines), default=0)
