"""What runs in workspaces and what it takes: jobs, fleets, GPU hours. Looks only, changes nothing.

    for workspace in workspaces([Path("runs")]):
        use = look(workspace)
        use.gpus_held, use.gpu_hours

Results are not opened: whether a job that is over went well, its flow knows.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ccai_core.errors import ArtifactError, FleetError
from ccai_core.records import RECORD_FILE
from infra.backends import backend
from infra.cluster import Role
from infra.endpoint import Endpoint, read_key, registered
from infra.fleet_metrics import Load, measure
from infra.fleet_plan import FleetFiles, FleetState
from infra.job_files import has_outcome, seconds_run
from infra.job_record import JobRecord, all_attempts
from infra.lease import age

JobWord = Literal["queued", "running", "over", "cancelled", "lost"]
LIVE: tuple[JobWord, ...] = ("queued", "running")


@dataclass(frozen=True)
class JobUse:
    """One attempt of one job."""

    key: str
    attempt: int
    job_id: str
    role: Role
    owner: str
    state: JobWord
    node: str
    reason: str
    """Why it waits, in the scheduler's words."""
    gpus: int
    seconds: float
    done: float | None
    """How far it says that it is, 0 to 1."""

    @property
    def gpu_hours(self) -> float:
        """Run time of all its GPUs together."""
        return self.gpus * self.seconds / 3600


@dataclass(frozen=True)
class FleetUse:
    """One fleet that was not ended."""

    name: str
    state: FleetState
    silent: float | None
    """Seconds since its driver was heard; none: never."""
    loads: Mapping[str, Load]
    """What each instance does, by name; without those that do not answer."""


@dataclass(frozen=True)
class Use:
    """What goes on in one workspace."""

    workspace: Path
    jobs: tuple[JobUse, ...]
    """Every attempt of every job."""
    fleets: tuple[FleetUse, ...]
    free: int
    """Bytes free on its disk."""

    @property
    def live(self) -> tuple[JobUse, ...]:
        """Jobs that queue or run."""
        return tuple(job for job in self.jobs if job.state in LIVE)

    @property
    def gpus_held(self) -> int:
        """GPUs of the jobs that run."""
        return sum(job.gpus for job in self.jobs if job.state == "running")

    @property
    def gpu_hours(self) -> float:
        """GPU hours of all its jobs so far."""
        return sum(job.gpu_hours for job in self.jobs)


def workspaces(named: Iterable[Path]) -> list[Path]:
    """Return the workspaces among `named` and right below them.

    Raises:
        ArtifactError: one of them is no workspace and holds none.
    """
    found: list[Path] = []
    for each in named:
        root = each.expanduser().resolve()
        inner = (
            [root] if (root / "jobs").is_dir() else sorted(f.parent for f in root.glob("*/jobs"))
        )
        if not inner:
            raise ArtifactError(
                f"{root}: is no workspace and holds none; one has a folder `jobs`. Name another."
            )
        found += inner
    return list(dict.fromkeys(found))


def look(workspace: Path) -> Use:
    """Return what goes on in a workspace.

    Raises:
        ArtifactError: a job's record is damaged.
    """
    jobs = tuple(_job(workspace, *each) for each in all_attempts(workspace / "jobs"))
    fleets = (_fleet(file.parent) for file in sorted(workspace.glob("fleets/*/state.json")))
    free = shutil.disk_usage(workspace).free
    return Use(workspace, jobs, tuple(each for each in fleets if each is not None), free)


def _job(workspace: Path, attempt: Path, record: JobRecord) -> JobUse:
    state, node, reason = _state(record, attempt)
    return JobUse(
        key=record.key,
        attempt=record.attempt,
        job_id=record.job_id,
        role=record.role,
        owner=record.owner,
        state=state,
        node=node,
        reason=reason,
        gpus=record.resources.all_gpus,
        seconds=seconds_run(attempt),
        done=_progress(workspace / "artifacts" / record.key) if state == "running" else None,
    )


def _state(record: JobRecord, attempt: Path) -> tuple[JobWord, str, str]:
    # The scheduler is asked only of what may be alive: the rest can be thousands.
    if has_outcome(attempt):
        return "over", "", ""
    if record.cancelled:
        return "cancelled", "", ""
    sight = backend(record.backend).look(record, attempt)
    state: JobWord = "lost" if sight.state == "gone" else sight.state
    # It may have ended between the two looks.
    return ("over" if state == "lost" and has_outcome(attempt) else state), sight.node, sight.reason


def _progress(artifact: Path) -> float | None:
    if (artifact / RECORD_FILE).exists():
        return None
    try:
        word = json.loads((artifact / "progress.json").read_text(encoding="utf-8"))
        return min(1.0, float(word["done"]) / float(word["total"]))
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None  # it has said nothing readable yet


def _fleet(folder: Path) -> FleetUse | None:
    files = FleetFiles(folder)
    state = files.state()
    if state is None or state.ended:
        return None
    loads: dict[Endpoint, Load] = {}
    # Whose key is another user's tells us nothing more: then its state is all that is shown.
    with contextlib.suppress(FleetError, PermissionError):
        loads = measure(registered(folder), read_key(folder))
    return FleetUse(
        folder.name, state, age(files.lease), {each.instance: load for each, load in loads.items()}
    )
