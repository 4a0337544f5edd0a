"""What is written down about a job, and where: one folder a key, one inner folder an attempt.

jobs/<key>/job.json                 the latest attempt, written whole
jobs/<key>/attempt-2/lease          renewed by the driver, watched by the job
jobs/<key>/attempt-2/<id>_0_log.err submitit's logs and pickles

record = read_record(folder / "train-1f3a")
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from filelock import FileLock
from pydantic import Field

from ccai_core.config import Config, parse_config
from ccai_core.errors import ArtifactError, ConfigError
from ccai_core.files import write_whole

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,149}")


class Resources(Config):
    """What a job asks for, in words that mean the same on every cluster."""

    cpus: int | None = Field(None, ge=1, description="Processor cores; none: what there is.")
    gpus: int = Field(0, ge=0, description="GPUs; with 0 the job sees no CUDA device.")
    memory_gb: float | None = Field(
        None, gt=0, description="Memory in GB (10^9 bytes); this machine warns, a cluster enforces."
    )
    minutes: float | None = Field(
        None, gt=0, description="Time limit; the job is ended shortly before. None: no limit."
    )


class JobRecord(Config):
    """One attempt of one job, as `job.json` keeps it."""

    key: str = Field(description="The name under which the job is found again.")
    attempt: int = Field(ge=1, description="Counts the times this key was started.")
    job_id: str = Field(description="The backend's id; locally the pid of submitit's controller.")
    function: str = Field(description="What runs, as module:name.")
    resources: Resources = Field(description="What was asked for.")
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
    """Return the lease of an attempt. Each has its own: renewing one never feeds an older one."""
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


def write_record(folder: Path, record: JobRecord) -> None:
    """Write `job.json` whole or not at all."""
    write_whole(folder / "job.json", record.model_dump_json(indent=2) + "\n")
