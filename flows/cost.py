"""What a flow would ask of its cluster: jobs, GPUs and GPU hours at most, said before they cost.

lines = cost_lines(cluster, ("generation", "training", "evaluation"))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ccai_core.errors import ConfigError
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.sft_config import SftConfig
from ccai_core.training_config import TrainingConfig
from infra.cluster import ClusterConfig, Role
from infra.engines import engine

Step = Literal["generation", "supervised", "training", "evaluation"]

# One after the other: baseline, trained model, judge; further judges and a guard come to these.
_FLEETS: dict[Step, int] = {"generation": 1, "evaluation": 3}
_ROLES: dict[Step, Role] = {
    "generation": "evaluate", "supervised": "train", "training": "train", "evaluation": "evaluate",
}  # fmt: skip


@dataclass(frozen=True)
class _Ask:
    text: str
    gpu_hours: float | None
    """At most; None: no time limit, so no bound."""


def cost_lines(
    cluster: ClusterConfig,
    steps: tuple[Step, ...],
    training: TrainingConfig | None = None,
    sft: SftConfig | None = None,
    trainings: int = 1,
    evaluation: EvaluationConfig | None = None,
) -> list[str]:
    """Return a line a step, and the sum; nothing for a machine that is the user's own.

    A supervised stage that `sft` asks for comes before the training, or the many of a sweep.
    Further judges of `evaluation`, and its guard, want a fleet each.

    Raises:
        ConfigError: the profile's engine cannot do what a step needs, or a node has fewer GPUs than
            `training` wants.
    """
    if "evaluation" in steps:
        _check_scoring(cluster)
    if cluster.kind == "local" and cluster.fleet is None:
        return []
    asks = []
    for step in steps:
        if step == "training" and sft and sft.epochs:
            asks.append(_ask(cluster, "supervised", sft.nodes, sft.ranks))
        together = training if step == "training" and training else TrainingConfig()
        jobs = trainings if step == "training" else 1
        further = len(evaluation.judges) + bool(evaluation.guard) if evaluation else 0
        fleets = _FLEETS.get(step, 0) + (further if step == "evaluation" else 0)
        asks.append(_ask(cluster, step, together.nodes, together.ranks, jobs, fleets))
    lines = [f"{'jobs' if not n else '':<12}{ask.text}" for n, ask in enumerate(asks)]
    if cluster.kind == "slurm":
        lines.append(f"{'cost':<12}{_sum(cluster, asks)}")
    return lines


def generation_time(cluster: ClusterConfig, tokens: int) -> list[str]:
    """Return a line that says how long a fleet writes so many tokens, if its speed is known."""
    fleet = cluster.fleet
    if fleet is None:
        return []
    if fleet.tokens_per_second is None:
        return [f"{'time':<12}not known: the profile says no fleet.tokens_per_second"]
    hours = tokens / fleet.tokens_per_second / fleet.instances / 3600
    gpus = fleet.instances * fleet.gpus
    return [
        f"{'time':<12}about {hours:.2g} h, {hours * gpus:.2g} GPU hours, if {fleet.instances} "
        f"instances write {fleet.tokens_per_second:g} tokens/s each"
    ]


def _check_scoring(cluster: ClusterConfig) -> None:
    if cluster.fleet and "scoring" not in engine(cluster.fleet.engine).capabilities:
        raise ConfigError(
            f"Cluster {cluster.name}: evaluation weighs texts by log-probabilities, which the "
            f"engine {cluster.fleet.engine} does not give. Set fleet.engine to vllm or "
            "transformers, or leave `fleet` out to evaluate in the job itself."
        )


def _ask(
    cluster: ClusterConfig, step: Step, nodes: int, ranks: int, jobs: int = 1, fleets: int = 0
) -> _Ask:
    if cluster.fleet is not None and fleets:
        fleet, minutes = cluster.fleet, cluster.for_role("fleet").minutes
        gpus = fleet.instances * fleet.gpus
        times = f"{fleets} fleets in turn, each" if fleets > 1 else "a fleet of"
        what = f"{step}: {times} {fleet.instances} x {fleet.engine}, {fleet.gpus} GPUs each"
        return _Ask(f"{what}{_limit(minutes)}", _hours(fleets * gpus, minutes))
    role, gpus = cluster.for_role(_ROLES[step]), cluster.gpus_of_model(_ROLES[step])
    if gpus and role.gpus_per_node is not None and ranks > role.gpus_per_node:
        raise ConfigError(
            f"ranks {ranks}: a node of cluster {cluster.name!r} has {role.gpus_per_node} GPUs "
            "(gpus_per_node). Take fewer ranks, and more nodes."
        )
    many = f"{jobs} jobs, each" if jobs > 1 else "1 job,"
    what = f"{step}: {many} {gpus * ranks} GPUs{f' on each of {nodes} nodes' if nodes > 1 else ''}"
    if ranks > 1 and not gpus:
        what += f", {ranks} processes{' each' if nodes > 1 else ''}"
    return _Ask(f"{what}{_limit(role.minutes)}", _hours(jobs * nodes * ranks * gpus, role.minutes))


def _limit(minutes: float | None) -> str:
    return f", at most {minutes:g} min each" if minutes else ""


def _hours(gpus: int, minutes: float | None) -> float | None:
    if not gpus:
        return 0.0
    return None if minutes is None else gpus * minutes / 60


def _sum(cluster: ClusterConfig, asks: list[_Ask]) -> str:
    hours = [ask.gpu_hours for ask in asks]
    if None in hours:
        return "not bounded: the profile sets no `minutes`"
    most = sum(hour for hour in hours if hour is not None)
    limit = cluster.limits.max_gpu_hours
    over = f"; the profile allows {limit:g} of one flow run" if limit is not None else ""
    return f"at most {most:g} GPU hours{over}"
