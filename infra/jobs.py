"""Run a function somewhere else: submit it, find it again, wait for it, end it.

A job has a key. Whoever submits the same key again gets the same job: the one that still queues or
runs is joined, one that succeeded is read, one that failed or vanished is started as a new attempt.
So a retried task, a restarted flow and a second driver all come back to work that is already going.

A job belongs to its driver. From `submit` on its lease is renewed until `result()` or `cancel()`
is through or the driver ends; when the driver is killed the job goes on for
`cluster.lease_seconds`, then ends itself unless a new driver has joined it by then. An interrupted
`result()` (Ctrl-C, a cancelled flow run) ends the job.

Function, arguments and result travel as pickles in the workspace: never pass a token as an
argument. A job reads it from the environment, where a Slurm profile names it under `secrets`.

    job = submit(train, config, resources=Resources(gpus=1), cluster=load_cluster("local"),
                 key="train-1f3a", folder=workspace.jobs)
    checkpoint = job.result()
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from infra.cluster import ClusterConfig, Role
from infra.job import Job, JobState, JobStatus, cancel_all
from infra.job_imports import check_function
from infra.job_limits import lacks, used_hours
from infra.job_record import Resources, key_folder, read_record, submit_lock
from infra.job_start import Order, attach, is_alive, render_order, room, start
from infra.lease import Lease
from infra.slurm_command import setting

__all__ = [
    "Job", "JobState", "JobStatus", "Resources", "cancel_all", "forget", "gpu_hours", "render",
    "submit", "submit_map",
]  # fmt: skip

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PLACE_POLL_S = 0.5


def submit(
    fn: Callable[..., T],
    *args: Any,
    resources: Resources,
    cluster: ClusterConfig,
    key: str,
    folder: Path,
    role: Role = "driver",
    lease: Lease | None = None,
    unwind_seconds: float = 10.0,
    owner: str = "",
) -> Job[T]:
    """Start `fn(*args)` as the job `key`, or join or read the one that has this key already.

    Blocks while `cluster.limits` leave no place beside the other jobs of `folder`.

    Args:
        fn: A plain function of an importable module.
        args: Anything that pickles; nothing secret.
        resources: What the job asks for.
        cluster: Where it runs.
        key: What makes it the same job; best a fingerprint of function and inputs.
        folder: The workspace's jobs folder.
        role: What the job is for; the profile may say something of its own for it.
        lease: A started lease that the caller owns, instead of one of the job's own.
        unwind_seconds: How long the job may take between being asked to end and being killed.
        owner: Whom its GPU hours are charged to, e.g. a flow run.

    Raises:
        ConfigError: `fn` cannot be submitted, `args` do not pickle, `key` is no file name, or the
            profile cannot give what is asked for.
        JobRefusedError: limits of the profile or Slurm itself do not let it in.
    """
    check_function(fn)
    order = Order(
        fn, resources, cluster.for_role(role), key_folder(folder, key).parent, role, lease,
        unwind_seconds, owner,
    )  # fmt: skip
    order.check(key)
    home = key_folder(folder, key)
    home.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        # One at a time: two threads must neither start the same key nor take the same place.
        with submit_lock(home.parent):
            known = attach([home], order)[home]
            if known is not None:
                return known
            missing = room(order)
            if not missing:
                return start(order, [(home, args)])[0]
        if not told:
            logger.info("Job %s waits for %s.", key, missing)
            told = True
        time.sleep(_PLACE_POLL_S)


def submit_map(
    fn: Callable[..., T],
    items: Sequence[Any],
    *,
    resources: Resources,
    cluster: ClusterConfig,
    key: str,
    folder: Path,
    role: Role = "driver",
    owner: str = "",
) -> list[Job[T]]:
    """Start `fn(item)` for each item, as the jobs `<key>.0`, `<key>.1`, ...; join those known.

    On Slurm they go in as arrays of which as many run at a time as `cluster.limits` allow. On this
    machine each waits for its place like any other job, so this may block until most are through.
    """
    check_function(fn)
    jobs = key_folder(folder, key).parent
    order = Order(fn, resources, cluster.for_role(role), jobs, role, None, 10.0, owner)
    order.check(key)
    if cluster.kind == "local":
        return _one_by_one(fn, items, order, key)
    # Refuses what the limits never let in; how many run at a time is the array's own affair.
    lacks(order.cluster.limits, resources, running=())
    homes = [key_folder(folder, f"{key}.{index}") for index in range(len(items))]
    for home in homes:
        home.mkdir(parents=True, exist_ok=True)
    made: dict[Path, Job[T]] = {}
    try:
        with submit_lock(jobs):
            known = attach(homes, order)
            made.update({home: job for home, job in known.items() if job})
            new = [(home, (item,)) for home, item in zip(homes, items, strict=True)]
            new = [each for each in new if each[0] not in made]
            size = int(setting("MaxArraySize", "1001"))
            chunks = [new[at : at + size] for at in range(0, len(new), size)]
            for index, chunk in enumerate(chunks):
                started = start(order, chunk, arrays=len(chunks) - index)
                made.update(zip((home for home, _ in chunk), started, strict=True))
    except BaseException:
        # Nobody would wait for these, and their leases would keep them going.
        cancel_all(list(made.values()))
        raise
    return [made[home] for home in homes]


def render(
    fn: Callable[..., Any],
    *args: Any,
    resources: Resources,
    cluster: ClusterConfig,
    key: str,
    folder: Path,
    role: Role = "driver",
    unwind_seconds: float = 10.0,
    owner: str = "",
) -> str:
    """Return what `submit` would send, and what it would cost at most; nothing is submitted."""
    check_function(fn)
    home = key_folder(folder, key)
    order = Order(
        fn, resources, cluster.for_role(role), home.parent, role, None, unwind_seconds, owner
    )
    return render_order(order, home, args)


def forget(key: str, folder: Path) -> None:
    """Let the next `submit` of `key` run again although an earlier job finished.

    For results whose files are gone or damaged. A job that still runs stays known.
    """
    home = key_folder(folder, key)
    with submit_lock(home.parent):
        record = read_record(home)
        if record and not is_alive(record, home / record.folder_name):
            (home / "job.json").unlink()


def gpu_hours(folder: Path, owner: str = "") -> float:
    """Return the GPU hours charged to `owner`: run times of what is over, limits of what runs."""
    return used_hours(folder.expanduser().resolve(), owner, is_alive)


def _one_by_one(fn: Callable[..., T], items: Sequence[Any], order: Order, key: str) -> list[Job[T]]:
    jobs: list[Job[T]] = []
    try:
        for index, item in enumerate(items):
            jobs.append(
                submit(
                    fn, item, resources=order.resources, cluster=order.cluster, owner=order.owner,
                    key=f"{key}.{index}", folder=order.jobs, role=order.role,
                )
            )  # fmt: skip
    except BaseException:
        cancel_all(jobs)
        raise
    return jobs
