"""What a dry run says that a flow would ask of its cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccai_core.errors import ConfigError
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.sft_config import SftConfig
from ccai_core.training_config import TrainingConfig
from flows.cost import cost_lines, generation_time
from infra.cluster import ClusterConfig, FleetDefaults, Limits, RoleConfig

SLURM = ClusterConfig(
    name="big",
    kind="slurm",
    storage=Path("/shared"),
    minutes=600,
    gpus_per_node=8,
    fleet=FleetDefaults(engine="vllm", instances=4, gpus=2),
    roles={"fleet": RoleConfig(minutes=120)},
    limits=Limits(max_gpu_hours=500),
)


def test_fleets_and_jobs_add_up_to_gpu_hours() -> None:
    lines = cost_lines(SLURM, ("generation", "training", "evaluation"))
    assert "generation: a fleet of 4 x vllm, 2 GPUs each, at most 120 min each" in lines[0]
    assert "training: 1 job, 1 GPUs, at most 600 min" in lines[1]
    assert "3 fleets in turn" in lines[2]
    # 4 x 2 GPUs x 2 h, then 1 GPU x 10 h, then three times 8 GPUs x 2 h.
    assert lines[3].endswith("at most 74 GPU hours; the profile allows 500 of one flow run")


def test_every_further_judge_and_a_guard_want_a_fleet() -> None:
    panel = EvaluationConfig(judges=("a/b", "c/d"), guard="e/f")
    lines = cost_lines(SLURM, ("evaluation",), evaluation=panel)
    assert "evaluation: 6 fleets in turn" in lines[0]
    assert lines[1].startswith("cost        at most 96 GPU hours")


def test_without_time_limits_there_is_no_bound() -> None:
    endless = SLURM.model_copy(update={"minutes": None})
    assert "not bounded" in cost_lines(endless, ("training",))[-1]


def test_what_runs_on_cpus_costs_no_gpu_hours() -> None:
    cpu = SLURM.model_copy(update={"device": "cpu"})
    lines = cost_lines(cpu, ("training",))
    assert "training: 1 job, 0 GPUs" in lines[0]
    assert "at most 0 GPU hours" in lines[-1]


def test_a_supervised_stage_is_a_job_more() -> None:
    asked = SftConfig(epochs=1, ranks=4)
    lines = cost_lines(SLURM, ("training",), TrainingConfig(), asked)
    assert "supervised: 1 job, 4 GPUs, at most 600 min" in lines[0]
    assert "training: 1 job, 1 GPUs, at most 600 min" in lines[1]
    assert "at most 50 GPU hours" in lines[2]
    assert len(cost_lines(SLURM, ("training",), TrainingConfig(), SftConfig())) == 2


def test_how_long_a_fleet_writes_is_said_where_its_speed_is_known() -> None:
    (unknown,) = generation_time(SLURM, 36_000_000)
    assert "fleet.tokens_per_second" in unknown
    fleet = SLURM.fleet.model_copy(update={"tokens_per_second": 2500})
    (line,) = generation_time(SLURM.model_copy(update={"fleet": fleet}), 36_000_000)
    assert "about 1 h, 8 GPU hours, if 4 instances write 2500 tokens/s each" in line
    assert generation_time(ClusterConfig(name="mine", kind="local"), 10) == []


def test_a_laptop_costs_nothing() -> None:
    assert cost_lines(ClusterConfig(name="mine", kind="local"), ("generation", "training")) == []


def test_an_engine_that_cannot_weigh_texts_is_refused_before_anything_starts() -> None:
    tgi = SLURM.model_copy(update={"fleet": FleetDefaults(engine="tgi")})
    assert cost_lines(tgi, ("generation",))
    with pytest.raises(ConfigError, match=r"engine tgi does not give.*vllm or transformers"):
        cost_lines(tgi, ("evaluation",))
