"""How `infra.jobs` finds a key's job, and how it starts a new attempt.

The order in which things are written is what makes a killed driver harmless: an attempt is written
down, then submitted, then recorded. A job does nothing before it is recorded; one that was
submitted and not recorded is found by its name and cancelled before the key is submitted again.

    jobs = start(order, [(home, args)])
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra import slurm_script
from infra.backends import Call, backend
from infra.cluster import ClusterConfig, Role
from infra.job import Job
from infra.job_limits import at_once, check_hours, lacks, most_hours
from infra.job_process import Surroundings
from infra.job_record import (
    JobRecord,
    Resources,
    all_attempts,
    lease_file,
    next_attempt,
    read_record,
    write_intent,
    write_record,
)
from infra.lease import Hold, Lease, Lent, Shared

logger = logging.getLogger(__name__)

Todo = Sequence[tuple[Path, tuple[Any, ...]]]
"""Folders of keys, each with the arguments of its call."""


@dataclass(frozen=True)
class Order:
    """What all jobs of one submission have in common."""

    fn: Callable[..., Any]
    resources: Resources
    cluster: ClusterConfig
    jobs: Path
    role: Role
    lease: Lease | None
    unwind_seconds: float
    owner: str

    def check(self, key: str) -> None:
        """Refuse what the cluster cannot do."""
        record = self.record(self.jobs / key, attempt=1, name=key)
        backend(self.cluster.kind).check(record, self.cluster, self.jobs)

    def record(self, home: Path, attempt: int, name: str) -> JobRecord:
        """Return what is written down of one job."""
        local = self.cluster.kind == "local"
        minutes = self.resources.minutes or self.cluster.minutes
        return JobRecord(
            key=home.name,
            attempt=attempt,
            backend=self.cluster.kind,
            cluster=self.cluster.name,
            role=self.role,
            name=name,
            function=f"{self.fn.__module__}:{self.fn.__qualname__}",
            resources=self.resources,
            minutes=minutes if local else slurm_script.minutes(self.resources, self.cluster),
            owner=self.owner,
            unwind_seconds=self.unwind_seconds,
            lease=self.lease.path.resolve() if self.lease else None,
            submitted_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def call(self, home: Path, record: JobRecord, args: tuple[Any, ...]) -> Call:
        """Return the call of one job."""
        attempt = home / record.folder_name
        around = Surroundings(
            attempt,
            lease=record.lease or lease_file(attempt),
            lease_seconds=self.cluster.lease_seconds,
            unwind_seconds=record.unwind_seconds,
            checkpointable=self.resources.checkpointable,
            address=self.cluster.address,
        )
        return Call(self.fn, args, around, record)


def attach(homes: Sequence[Path], order: Order) -> dict[Path, Job[Any] | None]:
    """Return the job of each key that queues, runs or has succeeded.

    What is left of any other job is cleared away.
    """
    found: dict[Path, Job[Any] | None] = dict.fromkeys(homes)
    live: list[tuple[Path, JobRecord]] = []
    for home in homes:
        record = read_record(home)
        if record is None:
            continue
        job: Job[Any] = Job(home, record, Lent())
        state = job.settled_state()
        if state == "finished":
            found[home] = job
        elif state in {"queued", "running"} and not record.cancelled:
            live.append((home, record))
        else:
            # Children can outlive a crashed job; a new attempt must not meet them.
            job.cancel() if state in {"queued", "running"} else _clear_away(home, record)
    found.update(_join(live, order))
    return found


def start(order: Order, todo: Todo, arrays: int = 1) -> list[Job[Any]]:
    """Start an attempt for each key, several as one array.

    Args:
        order: What they have in common.
        todo: The keys' folders and arguments.
        arrays: This array of a map and how many are still to come; they share the places left.
    """
    place = backend(order.cluster.kind)
    _take_back(order, [home for home, _ in todo])
    calls, files, lease = _prepare(order, todo, arrays)
    check_hours(order.jobs, [call.record for call in calls], order.cluster.limits, is_alive)
    if order.lease is None:
        lease.start()
    made: list[Job[Any]] = []
    try:
        for (home, _), call in zip(todo, calls, strict=True):
            write_intent(home, call.record)
        ids = place.start(calls, order.cluster, files)
        shared = Shared(lease, len(calls))
        for (home, _), call, job_id in zip(todo, calls, ids, strict=True):
            record = call.record.model_copy(update={"job_id": job_id})
            write_record(home, record)
            made.append(Job(home, record, Lent() if order.lease else shared.part()))
    except BaseException:
        # What was submitted waits for its record and ends with the lease.
        if order.lease is None:
            lease.release()
        raise
    return made


def room(order: Order) -> str:
    """Return what a new job of the order has to wait for, empty when there is room."""
    return lacks(order.cluster.limits, order.resources, running(order))


def running(order: Order) -> list[JobRecord]:
    """Return the jobs that take places of the order's profile.

    Limits are a profile's: jobs under another one, such as the step that owns a fleet, take no
    place of this one.
    """
    return [
        record
        for folder, record in all_attempts(order.jobs)
        if record.cluster == order.cluster.name and is_alive(record, folder)
    ]


def is_alive(record: JobRecord, attempt: Path) -> bool:
    """Whether a job takes a place, wherever it was submitted."""
    return backend(record.backend).is_alive(record, attempt)


def render_order(order: Order, home: Path, args: tuple[Any, ...]) -> str:
    """Return what would be submitted, with what it may cost in its second line."""
    record = order.record(home, next_attempt(home), name=f"{home.name}.dry-run")
    gpus = record.resources.all_gpus
    cost = "no GPU"
    if gpus:
        hours = f"{most_hours(record):.3g}" if record.minutes else "an unlimited number of"
        cost = f"{gpus} GPUs, at most {hours} GPU hours"
    files = home / record.folder_name
    text = backend(record.backend).render(order.call(home, record, args), order.cluster, files)
    first, _, rest = text.partition("\n")
    return f"{first}\n# Job {record.key}: {cost}\n{rest}"


def _prepare(order: Order, todo: Todo, arrays: int) -> tuple[list[Call], Path, Lease]:
    """Lay out the attempts of a submission, the folder of its files and its lease."""
    tag = uuid.uuid4().hex[:8]
    if len(todo) == 1:
        home, args = todo[0]
        attempt = next_attempt(home)
        record = order.record(home, attempt, name=f"{home.name}.{attempt}.{tag}")
        call = order.call(home, record, args)
        return [call], call.around.attempt, order.lease or _lease(call.around.lease, order)
    name = f"{todo[0][0].name.rpartition('.')[0]}.{tag}"
    files = order.jobs / ".arrays" / name
    lease = order.lease or _lease(lease_file(files), order)
    places = at_once(order.cluster.limits, order.resources, running(order))
    shared = {
        "files": files,
        "lease": lease.path,
        "at_once": max(1, places // arrays),
    }
    calls = []
    for home, args in todo:
        record = order.record(home, next_attempt(home), name).model_copy(update=shared)
        calls.append(order.call(home, record, args))
    return calls, files, lease


def _take_back(order: Order, homes: Sequence[Path]) -> None:
    """Cancel what a driver submitted for these keys and was killed before it wrote it down."""
    names = {}
    for home in homes:
        newest = read_record(home / f"attempt-{next_attempt(home) - 1}")
        if newest is not None and not newest.job_id:
            names[newest.name] = newest
    for record in names.values():
        backend(record.backend).clear(record)


def _join(live: Sequence[tuple[Path, JobRecord]], order: Order) -> dict[Path, Job[Any]]:
    """Join jobs that queue or run; those of one lease share its renewal."""
    paths = [record.lease or lease_file(home / record.folder_name) for home, record in live]
    ours = order.lease.path.resolve() if order.lease else None
    shared = {
        path: Shared(_lease(path, order).start(), paths.count(path))
        for path in set(paths)
        if path != ours
    }
    joined: dict[Path, Job[Any]] = {}
    for (home, record), path in zip(live, paths, strict=True):
        hold: Hold = shared[path].part() if path in shared else Lent()
        joined[home] = Job(home, record, hold)
        logger.info("Job %s (attempt %d) is there already; joined it.", home.name, record.attempt)
    return joined


def _clear_away(home: Path, record: JobRecord) -> None:
    place = backend(record.backend)
    if not place.leaves_nothing:
        place.end([(record, home / record.folder_name)])


def _lease(path: Path, order: Order) -> Lease:
    return Lease(path, every=min(5.0, order.cluster.lease_seconds / 4))
