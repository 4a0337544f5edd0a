"""Jobs on this machine: start one, tell whether it lives, end it.

[job_id] = LocalJobs().start([call], cluster, attempt)
"""

from __future__ import annotations

import logging
import os
import platform
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from submitit.local.local import LocalExecutor, LocalJob

from ccai_core.errors import ConfigError
from infra.backends import Call, Sighting
from infra.cluster import ClusterConfig
from infra.job_imports import explain_pickling, import_root
from infra.job_process import run_with_lease
from infra.job_record import JobRecord, all_attempts
from infra.local_gpus import choose, given, write_given
from infra.processes import COOKIE, command_line, end_processes, job_processes

logger = logging.getLogger(__name__)

_CONTROLLER = "submitit.local._local"
_NO_LIMIT_MINUTES = 10 * 365 * 24 * 60


class _DetachedExecutor(LocalExecutor):  # type: ignore[misc]  # submitit is untyped here
    """submitit's local executor, with the controller in a session of its own.

    submitit starts its controller in the driver's session: a Ctrl-C in the terminal, or closing
    it, would hit driver and job at once, and the job would die while the driver still decides.
    Detached, only the driver is interrupted, and ends the job in order (`Job.result` cancels).
    The job's environment is built here, for this job only: `os.environ` belongs to all threads.
    """

    def __init__(self, folder: Path, environment: dict[str, str], processes: int) -> None:
        # -P: a file of the working directory called like one of our modules must not replace it.
        super().__init__(folder, python=f"{shlex.quote(sys.executable)} -P")
        self._environment, self._processes = environment, processes

    def _submit_command(self, command: str) -> Any:
        limit_s = max(2, int(self.parameters["timeout_min"] * 60))
        environment = self._environment | {
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_NTASKS": str(self._processes),
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_TIMEOUT_S": str(limit_s),
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": str(min(30, limit_s // 2)),
            "SUBMITIT_LOCAL_WITH_SHELL": "",
            "SUBMITIT_STDERR_TO_STDOUT": "",
        }
        with (self.folder / "controller.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603  # our own interpreter, no shell
                _controller(self.folder),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # Somebody must wait for the child when it ends, or it stays as a zombie.
        threading.Thread(target=process.wait, name=f"reap {process.pid}", daemon=True).start()
        return LocalJob(folder=self.folder, job_id=str(process.pid), process=process)


class LocalJobs:
    """Jobs of this machine."""

    settle_seconds = 0.0
    poll_at_end = 0.05
    leaves_nothing = False

    def check(self, record: JobRecord, cluster: ClusterConfig, folder: Path) -> None:
        """Refuse what one machine cannot give, and warn of what it may not bear."""
        asked = record.resources
        if asked.nodes > 1:
            raise ConfigError(
                f"Job {record.key!r} asks for {asked.nodes} nodes; cluster {cluster.name!r} is one "
                "machine. Ask for one node, or choose a Slurm profile with --cluster."
            )
        total = psutil.virtual_memory().total / 1e9
        if asked.memory_gb is not None and asked.memory_gb > total:
            logger.warning(
                "The job asks for %g GB of memory; this machine has %.0f GB.",
                asked.memory_gb,
                total,
            )

    def clear(self, record: JobRecord) -> None:
        """Do nothing: what nobody wrote down ends by itself with its lease."""

    def start(self, calls: Sequence[Call], cluster: ClusterConfig, files: Path) -> list[str]:
        """Start each call in a new process.

        Raises:
            ConfigError: an argument cannot be pickled.
        """
        return [self._start(call, cluster, files) for call in calls]

    def render(self, call: Call, cluster: ClusterConfig, files: Path) -> str:
        """Return the command that runs the call."""
        return (
            f"# A process of its own on this machine; its files: {files}\n"
            f"{shlex.join(_controller(files))}  # runs {call.record.function}\n"
        )

    def look(self, record: JobRecord, attempt: Path, newer_than: float = 0.0) -> Sighting:
        """Tell whether the job's controller runs."""
        alive = self.is_alive(record, attempt)
        return Sighting("running" if alive else "gone", node=platform.node() if alive else "")

    def is_alive(self, record: JobRecord, attempt: Path) -> bool:
        """Tell whether the job's controller runs.

        A pid alone proves nothing (it is reused), and a start time is only as good as the clock:
        it moves with every correction. The controller's command line names the attempt's folder,
        which no other process ever had.
        """
        arguments = command_line(int(record.job_id)) if record.job_id else []
        return _CONTROLLER in arguments and arguments[-1] == str(attempt)

    def end(self, jobs: Sequence[tuple[JobRecord, Path]]) -> None:
        """End every process of the jobs: SIGTERM, and SIGKILL for what is left in the end."""
        cookies = {str(attempt) for _, attempt in jobs}
        grace = max((record.unwind_seconds for record, _ in jobs), default=0.0)
        end_processes(lambda: job_processes(*cookies), grace)

    def _start(self, call: Call, cluster: ClusterConfig, files: Path) -> str:
        devices = self._devices(call)
        environment = _environment(call, cluster, devices)
        executor = _DetachedExecutor(files, environment, call.record.resources.tasks_per_node)
        executor.update_parameters(timeout_min=call.record.minutes or _NO_LIMIT_MINUTES)
        with explain_pickling(call.function):
            job = executor.submit(run_with_lease, call.function, call.args, call.around)
        write_given(call.around.attempt, devices)
        return str(job.job_id)

    def _devices(self, call: Call) -> list[str]:
        """Return the GPUs for a call, away from those of other jobs as far as there are more."""
        wanted = call.record.resources.gpus
        if not wanted:
            return []
        jobs = call.around.attempt.parents[1]
        taken = [
            given(folder)
            for folder, record in all_attempts(jobs)
            if record.backend == "local" and record.resources.gpus and self.is_alive(record, folder)
        ]
        return choose(wanted, taken)


def _controller(files: Path) -> list[str]:
    return [sys.executable, "-P", "-m", _CONTROLLER, str(files)]


def _environment(call: Call, cluster: ClusterConfig, devices: Sequence[str]) -> dict[str, str]:
    function, resources = call.function, call.record.resources
    roots = dict.fromkeys([import_root(__name__), import_root(function.__module__)])
    path = [*(root for root in roots if root), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        COOKIE: str(call.around.attempt),
        "CUDA_VISIBLE_DEVICES": ",".join(devices),
        "PYTHONPATH": os.pathsep.join(each for each in path if each),
    }
    if resources.cpus is not None:
        threads = min(resources.cpus, psutil.cpu_count() or 1)
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment | cluster.environment
