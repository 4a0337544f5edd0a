"""Places where jobs run, behind one set of words: start, look, end.

A job is looked at and ended through the backend that its record names, whatever the profile says
by now.

    backend("slurm").look(record, attempt)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from infra.cluster import ClusterConfig
from infra.job_process import Surroundings
from infra.job_record import JobRecord


@dataclass(frozen=True)
class Call:
    """One function call to be submitted: what it is, what it is told, how it is written down."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    around: Surroundings
    record: JobRecord


@dataclass(frozen=True)
class Sighting:
    """What a backend sees of a job."""

    state: Literal["queued", "running", "gone"]
    word: str = ""
    node: str = ""
    reason: str = ""


class Backend(Protocol):
    """What `infra.jobs` asks of a place where work runs."""

    settle_seconds: float
    """How long after its end a job's last files may still be on their way to the driver."""
    poll_at_end: float
    """How often to look, in seconds, while a job that has its result is on its way out."""
    leaves_nothing: bool
    """Whether all processes of a job end with it."""

    def check(self, record: JobRecord, cluster: ClusterConfig, folder: Path) -> None:
        """Refuse what cannot work here before anything is submitted."""

    def clear(self, record: JobRecord) -> None:
        """Take back what a killed driver may have submitted without writing it down."""

    def start(self, calls: Sequence[Call], cluster: ClusterConfig, files: Path) -> list[str]:
        """Submit calls that ask for the same, and return their ids."""

    def render(self, call: Call, cluster: ClusterConfig, files: Path) -> str:
        """Return what `start` would submit."""

    def look(self, record: JobRecord, attempt: Path, newer_than: float = 0.0) -> Sighting:
        """Look at a job."""

    def is_alive(self, record: JobRecord, attempt: Path) -> bool:
        """Whether a job takes a place: cheap, asked of every job there is."""

    def end(self, jobs: Sequence[tuple[JobRecord, Path]]) -> None:
        """End jobs and everything they started; return when they are gone."""


def backend(kind: Literal["local", "slurm"]) -> Backend:
    """Return the backend of that kind."""
    from infra.local_jobs import LocalJobs
    from infra.slurm_jobs import SlurmJobs

    return LocalJobs() if kind == "local" else SlurmJobs()
