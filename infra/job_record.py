"""What is written down about a job, and where: one folder a key, one inner folder an attempt.

jobs/<key>/job.json             the latest attempt, once it is submitted
jobs/<key>/attempt-2/job.json   each attempt, written before it is submitted and again after it
jobs/<key>/attempt-2/...        what the attempt leaves: see `infra.job_files`

record = read_record(folder / "train-1f3a")
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import Field

from ccai_core.config import Config, parse_config
from ccai_core.errors import ArtifactError, ConfigError
from ccai_core.files import write_whole
from infra.cluster import Role

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,149}")
_LOCK_S = 10.0


class Resources(Config):
    """What a job asks for, in words that mean the same on every cluster."""

    nodes: int = Field(1, ge=1, le=4096, description="Machines.")
    tasks_per_node: int = Field(
        1, ge=1, le=1024, description="Processes on each node that run the function, as ranks."
    )
    cpus: int | None = Field(
        None, ge=1, description="Processor cores of each task; none: the cluster's default."
    )
    gpus: int = Field(0, ge=0, description="GPUs of each node; with 0 there is no CUDA device.")
    memory_gb: float | None = Field(
        None,
        gt=0,
        description="Memory of each node in GB (10^9 bytes); this machine warns, Slurm enforces.",
    )
    minutes: float | None = Field(
        None, gt=0, description="Time limit; the job is ended shortly before. None: the cluster's."
    )
    checkpointable: bool = Field(
        False,
        description="May be started again in a new allocation and then goes on where it was.",
    )

    @property
    def all_gpus(self) -> int:
        """GPUs of all nodes together."""
        return self.nodes * self.gpus


class JobRecord(Config):
    """One attempt of one job, as `job.json` keeps it."""

    key: str = Field(description="The name under which the job is found again.")
    attempt: int = Field(ge=1, description="Counts the times this key was started.")
    job_id: str = Field(
        "", description="Slurm's id, or the pid of submitit's controller; empty: not submitted yet."
    )
    backend: Literal["local", "slurm"] = Field("local", description="Where it was submitted to.")
    cluster: str = Field("", description="Name of the profile.")
    role: Role = Field("driver", description="What the job is for.")
    name: str = Field("", description="What Slurm calls it; no two submissions share a name.")
    function: str = Field(description="What runs, as module:name.")
    resources: Resources = Field(description="What was asked for.")
    minutes: float | None = Field(None, description="Time limit that was set.")
    owner: str = Field("", description="Whom its GPU hours are charged to.")
    unwind_seconds: float = Field(10.0, description="Time between being asked to end and killed.")
    lease: Path | None = Field(None, description="The lease it watches; none: its own.")
    files: Path | None = Field(None, description="Where submitit's files are; none: the attempt's.")
    at_once: int | None = Field(
        None, description="How many of its array run at a time; none: it is in no array."
    )
    submitted_at: str = Field(description="UTC time, ISO 8601.")
    cancelled: bool = Field(False, description="Whether somebody ended it on purpose.")

    @property
    def folder_name(self) -> str:
        """The attempt's folder inside the key's."""
        return f"attempt-{self.attempt}"


def key_folder(folder: Path, key: str) -> Path:
    """Return the folder of a key, resolved: the path itself identifies the job's processes.

    Raises:
        ConfigError: the key cannot be the name of a folder.
    """
    if not _KEY.fullmatch(key):
        raise ConfigError(
            f"Job key {key!r} must be 1 to 150 letters, digits, dots, dashes or underscores, "
            "starting with a letter or digit; it names a folder."
        )
    return folder.expanduser().resolve() / key


def submit_lock(folder: Path) -> FileLock:
    """Return the lock that guards every change to the records in the jobs folder `folder`."""
    return FileLock(folder / ".submit.lock")


def lease_file(attempt: Path) -> Path:
    """Return an attempt's own lease: renewing one never feeds an older one."""
    return attempt / "lease"


def next_attempt(folder: Path) -> int:
    """Return the first attempt number not used yet, whether or not it came to be recorded."""
    used = [int(each.name.removeprefix("attempt-")) for each in folder.glob("attempt-[0-9]*")]
    return max(used, default=0) + 1


def read_record(folder: Path) -> JobRecord | None:
    """Return the latest attempt of the key that lives in `folder`; None when there is none.

    Raises:
        ArtifactError: `job.json` is damaged or from another version.
    """
    path = folder / "job.json"
    try:
        return parse_config(JobRecord, json.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, ConfigError) as error:
        raise ArtifactError(
            f"{path} is not a job record ({error}). If no such job runs any more, remove "
            f"{folder} and start again."
        ) from None


def write_intent(folder: Path, record: JobRecord) -> None:
    """Write down an attempt that is about to be submitted, so that it can be found whatever comes.

    `record` has no job id yet; `write_record` follows once it has one.
    """
    write_whole(folder / record.folder_name / "job.json", _text(record))


def write_record(folder: Path, record: JobRecord) -> None:
    """Write `job.json` whole or not at all: from now on this attempt is the key's job."""
    write_whole(folder / record.folder_name / "job.json", _text(record))
    write_whole(folder / "job.json", _text(record))


def mark_cancelled(folder: Path, record: JobRecord) -> None:
    """Note that somebody ended the attempt, unless a newer one is the key's job by now."""
    lock = submit_lock(folder.parent)
    # Who submits may hold the lock for as long as Slurm is away; an end must not wait for that.
    with contextlib.suppress(Timeout):
        lock.acquire(timeout=_LOCK_S)
    try:
        if read_record(folder) == record:
            write_record(folder, record.model_copy(update={"cancelled": True}))
    finally:
        lock.release()


def all_attempts(folder: Path) -> Iterator[tuple[Path, JobRecord]]:
    """Yield every attempt in the jobs folder `folder`: its own folder and its record."""
    for file in sorted(folder.glob("*/attempt-*/job.json")):
        record = read_record(file.parent)
        if record is not None:
            yield file.parent, record


def _text(record: JobRecord) -> str:
    return record.model_dump_json(indent=2) + "\n"
