"""Run a function somewhere else: submit it, find it again, wait for it, end it.

A job has a key. Whoever submits the same key again gets the same job: the one that still runs is
joined, one that succeeded is read, one that failed or vanished is started as a new attempt. So a
retried task, a restarted flow and a second driver all come back to work that is already going.

A job belongs to its driver. From `submit` on its lease is renewed until `result()` or `cancel()`
is through or the driver ends; when the driver is killed the job goes on for
`cluster.lease_seconds`, then ends itself unless a new driver has joined it by then. An interrupted
`result()` (Ctrl-C, a cancelled flow run) ends the job.

Function, arguments and result travel as pickles in the workspace, and `os.environ` travels with
them: never pass a token as an argument; the job reads it from the environment.

    job = submit(train, config, resources=Resources(gpus=1), cluster=load_cluster("local"),
                 key="train-1f3a", folder=workspace.jobs)
    checkpoint = job.result()
"""

from __future__ import annotations

import logging
import sys
import time
import types
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from ccai_core.errors import ConfigError
from infra import local_jobs
from infra.cluster import ClusterConfig
from infra.job import Job, JobState
from infra.job_record import (
    JobRecord,
    Resources,
    key_folder,
    lease_file,
    next_attempt,
    read_record,
    submit_lock,
    write_record,
)
from infra.lease import Lease

__all__ = ["Job", "JobState", "Resources", "forget", "submit"]

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
) -> Job[T]:
    """Start `fn(*args)` as the job `key`, or join or read the one that has this key already.

    Blocks while `cluster.limits.max_jobs` other jobs of `folder` run.

    Args:
        fn: A plain function of an importable module.
        args: Anything that pickles; nothing secret.
        resources: What the job asks for.
        cluster: Where it runs.
        key: What makes it the same job; best a fingerprint of function and inputs.
        folder: The workspace's jobs folder.

    Raises:
        ConfigError: `fn` cannot be submitted, `args` do not pickle, or `key` is no file name.
    """
    _check_function(fn)
    home = key_folder(folder, key)
    home.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        # One at a time: two threads must neither start the same key nor take the same place.
        with submit_lock(home.parent):
            known = _attach(home, cluster)
            if known is not None:
                return known
            running = _running(home.parent)
            if len(running) < cluster.limits.max_jobs:
                return _start(fn, args, resources, cluster, home)
        if not told:
            logger.info("Job %s waits for a place; running: %s.", key, ", ".join(running))
            told = True
        time.sleep(_PLACE_POLL_S)


def forget(key: str, folder: Path) -> None:
    """Let the next `submit` of `key` run again although an earlier job finished.

    For results whose files are gone or damaged. A job that still runs stays known.
    """
    home = key_folder(folder, key)
    with submit_lock(home.parent):
        record = read_record(home)
        if record and not local_jobs.is_alive(record.job_id, home / record.folder_name):
            (home / "job.json").unlink()


def _check_function(fn: Callable[..., Any]) -> None:
    """Let through only what a fresh interpreter finds again by its name."""
    name = getattr(fn, "__qualname__", type(fn).__name__)
    if not isinstance(fn, types.FunctionType):
        problem = f"is a {type(fn).__name__}, not a function"
    elif fn.__module__ == "__main__":
        problem = "belongs to the program itself (__main__), which a job cannot import"
    elif "<" in name or "." in name:
        problem = "is a lambda, or defined inside another function or a class"
    elif getattr(sys.modules.get(fn.__module__), name, None) is not fn:
        problem = f"is not what {fn.__module__} calls by this name (something is wrapped round it)"
    else:
        return
    raise ConfigError(
        f"{name} cannot be submitted: it {problem}. Submit a plain function from the top level of "
        "an importable module."
    )


def _attach(home: Path, cluster: ClusterConfig) -> Job[Any] | None:
    """Return the job of `home` if it runs or has succeeded; else clear away what is left of it."""
    record = read_record(home)
    if record is None:
        return None
    lease = _lease(home / record.folder_name, cluster)
    job: Job[Any] = Job(home, record, lease)
    state = job.state()
    if state == "running":
        lease.start()
        logger.info("Job %s (attempt %d) runs already; joined it.", job.key, job.attempt)
    if state in {"running", "finished"}:
        return job
    # Children can outlive a crashed job; a new attempt must not meet them.
    local_jobs.end(home / record.folder_name)
    return None


def _start(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    resources: Resources,
    cluster: ClusterConfig,
    home: Path,
) -> Job[Any]:
    attempt = next_attempt(home)
    folder = home / f"attempt-{attempt}"
    lease = _lease(folder, cluster).start()
    try:
        record = JobRecord(
            key=home.name,
            attempt=attempt,
            job_id=local_jobs.start(
                fn, args, folder, lease_seconds=cluster.lease_seconds, resources=resources
            ),
            function=f"{fn.__module__}:{fn.__qualname__}",
            resources=resources,
            submitted_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_record(home, record)
    except BaseException:
        # The process, if there is one, waits for the record and ends with the lease.
        lease.release()
        raise
    return Job(home, record, lease)


def _running(folder: Path) -> list[str]:
    """Return the keys of the jobs of `folder` that are alive, whoever started them."""
    records = ((home, read_record(home)) for home in folder.iterdir() if home.is_dir())
    return [
        record.key
        for home, record in records
        if record and local_jobs.is_alive(record.job_id, home / record.folder_name)
    ]


def _lease(folder: Path, cluster: ClusterConfig) -> Lease:
    return Lease(lease_file(folder), every=min(5.0, cluster.lease_seconds / 4))
