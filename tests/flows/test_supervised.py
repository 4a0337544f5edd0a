"""The training flow with a supervised stage in front of DPO, on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccai_core.records import read_record
from flows.config import TrainingFlowConfig
from flows.training import training
from tests.flows.test_poc import flow_run, task_runs
from tests.flows.tiny_flow import attempts, save_stopping_model
from tests.test_dpo import pair, write


@pytest.fixture
def config(server: str, tmp_path: Path) -> TrainingFlowConfig:
    return TrainingFlowConfig.model_validate(
        {
            "model": str(save_stopping_model(tmp_path / "tiny")),
            "pairs": write(tmp_path / "pairs.jsonl", [pair(i) for i in range(12)]),
            "workspace": tmp_path / "ws",
            "device": "cpu",
            "training": {"epochs": 1, "learning_rate": 1e-3},
            "sft": {"epochs": 1, "learning_rate": 1e-3},
        }
    )


@pytest.mark.slow
def test_dpo_starts_from_the_fine_tuned_model(config: TrainingFlowConfig) -> None:
    summary = training(config)
    first, second = summary.findings[:2]
    assert "updates on 11 chosen answers" in first or "updates on 10 chosen answers" in first
    assert "nats a token" in first
    assert "updates, loss" in second
    assert attempts(config.workspace) == {"sft": 1, "training": 1}

    (tuned,) = (config.workspace / "artifacts").glob("sft-*")
    (trained,) = (config.workspace / "artifacts").glob("training-*")
    made, from_it = read_record(tuned), read_record(trained)
    assert made is not None
    assert from_it is not None
    assert (
        from_it.inputs["model"]
        == made.facts["model"]["name"] + "@" + (made.facts["model"]["revision"])
    )
    assert from_it.parents == (tuned.name,)
    assert from_it.facts["validation_before"]["margin"] == 0

    flow, stages = flow_run(config.workspace)
    assert set(stages) == {"sft", "training"}
    assert {"train/loss", "validation/token_accuracy"} <= stages["sft"].data.metrics.keys()
    assert stages["sft"].data.params["epochs"] == "1"
    tasks = task_runs(flow.data.tags["prefect.flow_run"])
    assert {"fine-tune tiny", "train tiny-sft"} <= set(tasks)

    assert training(config).findings == summary.findings
    assert attempts(config.workspace) == {"sft": 1, "training": 1}
