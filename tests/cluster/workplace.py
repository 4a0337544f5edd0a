"""What the tests of jobs on Slurm share: a workspace, a profile for the lab, and ways to wait."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from infra.cluster import ClusterConfig, Limits
from infra.jobs import Job, Resources, submit
from tests.cluster.slurm_lab import SlurmLab

ROOT = Path(__file__).resolve().parents[2]


class Workplace:
    """A workspace on the lab's storage."""

    def __init__(self, lab: SlurmLab, root: Path, lease_seconds: float = 30) -> None:
        self.lab = lab
        self.root = root
        self.jobs = root / "work" / "jobs"
        self.cluster = ClusterConfig(
            name="lab",
            kind="slurm",
            storage=root,
            lease_seconds=lease_seconds,
            minutes=10,
            cpus=1,
            memory_gb=0.4,
            gpus_per_node=2,
            limits=Limits(max_jobs=50),
        )

    def profile(self, **other: Any) -> ClusterConfig:
        return self.cluster.model_copy(update=other)

    def submit(self, fn: Callable[..., Any], *args: Any, key: str = "job", **more: Any) -> Job[Any]:
        options = {"resources": Resources(), "cluster": self.cluster, "folder": self.jobs} | more
        return submit(fn, *args, key=key, **options)

    def path(self, name: str) -> Path:
        return self.root / name

    def driver(self, program: str, *arguments: object) -> subprocess.Popen[str]:
        """Start a driver that is a program of its own, and can be killed."""
        return subprocess.Popen(
            [sys.executable, "-c", program, str(self.root), *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def names(self) -> list[str]:
        """Return the names of the jobs in the lab, without attempt and tag."""
        return [each.split(".")[0] for each in self.lab.run("squeue", "-h", "-o", "%j").split()]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def until(true: Callable[[], Any], seconds: float = 30) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "waited in vain"
        time.sleep(0.05)
    return time.monotonic() - began


def is_running(pid: int) -> bool:
    # In a container without an init, orphans stay as zombies.
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
