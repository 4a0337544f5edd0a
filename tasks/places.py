"""Where a step runs on this flow run's cluster, and who answers its calls.

place = asking(site, "evaluate")
make(..., (request, artifact.folder, journal, place.engines), place=place)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ccai_core.engines import LocalEngines, OpenEngine
from infra.cluster import ClusterConfig, Role
from infra.fleet_plan import fleet_states
from infra.job_process import UNWIND_S
from infra.job_record import Resources
from tasks.fleet_engines import FleetEngines
from tasks.site import Site

_FLEET_UNWIND_S = 45.0
"""Longest that a step with a fleet takes to end: its instances are cancelled and drain."""


_TRAINING_UNWIND_S = 60.0
"""Longest that a training takes to end: the batch at hand and a checkpoint."""


@dataclass(frozen=True)
class Place:
    """A cluster, what to ask of it, and the engines that a step there has."""

    cluster: ClusterConfig
    role: Role
    resources: Resources
    engines: OpenEngine
    unwind_seconds: float = UNWIND_S
    fleets: Path | None = None
    """Where the step's fleets say how they are."""

    def lacks(self) -> str:
        """Return what the step's fleet still waits for, e.g. "fleet: 1 ready, 3 queued"."""
        states = fleet_states(self.fleets) if self.fleets else []
        running = [state for state in states if not state.ended]
        if not running or all(view.state == "ready" for view in running[-1].instances):
            return ""
        counts = Counter(view.state for view in running[-1].instances)
        said = ", ".join(f"{number} {state}" for state, number in counts.items())
        # What most of those that queue wait for, in Slurm's words.
        reasons = Counter(view.note for view in running[-1].instances if view.state == "queued")
        why = next((note for note, _ in reasons.most_common() if note), "")
        return f"fleet: {said}{f' ({why})' if why else ''}"


def computing(site: Site, role: Role, nodes: int = 1, ranks: int = 1) -> Place:
    """Return the place of a step that runs a model itself, in `ranks` processes on each node."""
    return Place(
        cluster=site.cluster,
        role=role,
        resources=Resources(
            nodes=nodes,
            tasks_per_node=ranks,
            gpus=ranks * site.cluster.gpus_of_model(role),
            # All that these steps do is resumed: journals, checkpoints.
            checkpointable=True,
        ),
        engines=LocalEngines(site.cluster.device),
        unwind_seconds=_TRAINING_UNWIND_S if role == "train" else UNWIND_S,
    )


def asking(site: Site, role: Role) -> Place:
    """Return the place of a step that asks a model: beside its fleet's driver, or with the model.

    With a fleet the step itself is light. It runs on the driver's machine and owns the fleet: they
    end together.
    """
    if site.cluster.fleet is None:
        return computing(site, role)
    return Place(
        cluster=site.cluster.beside_driver(),
        role="driver",
        resources=Resources(),
        engines=FleetEngines(
            site.cluster, site.workspace.fleets, site.workspace.jobs, owner=site.owner
        ),
        unwind_seconds=_FLEET_UNWIND_S,
        fleets=site.workspace.fleets,
    )
