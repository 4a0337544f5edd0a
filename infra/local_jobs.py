"""Jobs on this machine: start one, tell whether it lives, end it.

The three functions here are all that `infra.jobs` asks of a place where work runs; another
kind of cluster is another module with the same three.

    job_id = start(train, (config,), attempt, lease_seconds=60.0, resources=resources)
"""

from __future__ import annotations

import logging
import os
import pickle
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from submitit.local.local import LocalExecutor, LocalJob

from ccai_core.errors import ConfigError
from infra.job_process import UNWIND_S, run_with_lease
from infra.job_record import Resources
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

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        # -P: a file of the working directory called like one of our modules must not replace it.
        super().__init__(folder, python=f"{shlex.quote(sys.executable)} -P")
        self._environment = environment

    def _submit_command(self, command: str) -> Any:
        limit_s = max(2, int(self.parameters["timeout_min"] * 60))
        environment = self._environment | {
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_NTASKS": "1",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_TIMEOUT_S": str(limit_s),
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": str(min(30, limit_s // 2)),
            "SUBMITIT_LOCAL_WITH_SHELL": "",
            "SUBMITIT_STDERR_TO_STDOUT": "",
        }
        with (self.folder / "controller.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603  # our own interpreter, no shell
                [sys.executable, "-P", "-m", _CONTROLLER, str(self.folder)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # Somebody must wait for the child when it ends, or it stays as a zombie.
        threading.Thread(target=process.wait, name=f"reap {process.pid}", daemon=True).start()
        return LocalJob(folder=self.folder, job_id=str(process.pid), process=process)


def start(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    attempt: Path,
    *,
    lease_seconds: float,
    resources: Resources,
) -> str:
    """Start `function(*args)` in a new process whose files live in `attempt`; return its id.

    Raises:
        ConfigError: an argument cannot be pickled.
    """
    _warn_of_memory(resources)
    executor = _DetachedExecutor(attempt, _environment(function, attempt, resources))
    executor.update_parameters(timeout_min=resources.minutes or _NO_LIMIT_MINUTES)
    try:
        job = executor.submit(run_with_lease, function, args, attempt, lease_seconds)
    except (pickle.PicklingError, TypeError) as error:
        raise ConfigError(
            f"The arguments of {function.__qualname__} cannot be sent to a job ({error}). "
            "Pass plain values, paths and configs; open files and clients inside the job."
        ) from error
    return str(job.job_id)


def is_alive(job_id: str, attempt: Path) -> bool:
    """Tell whether the job's controller runs.

    A pid alone proves nothing (it is reused), and a start time is only as good as the clock: it
    moves with every correction. The controller's command line names the attempt's folder, which
    no other process ever had.
    """
    arguments = command_line(int(job_id))
    return _CONTROLLER in arguments and arguments[-1] == str(attempt)


def end(attempt: Path) -> None:
    """End every process of the attempt: SIGTERM, and SIGKILL for what is left after 10 s."""
    end_processes(lambda: job_processes(str(attempt)), grace=UNWIND_S)


def _environment(
    function: Callable[..., Any], attempt: Path, resources: Resources
) -> dict[str, str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [str(n) for n in range(resources.gpus)] if visible is None else visible.split(",")
    roots = dict.fromkeys([_import_root(__name__), _import_root(function.__module__)])
    path = [*(root for root in roots if root), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        COOKIE: str(attempt),
        "CUDA_VISIBLE_DEVICES": ",".join(devices[: resources.gpus]),
        "PYTHONPATH": os.pathsep.join(each for each in path if each),
    }
    if resources.cpus is not None:
        threads = min(resources.cpus, psutil.cpu_count() or 1)
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment


def _import_root(module: str) -> str | None:
    """Return the folder from which `module` was imported, None if every interpreter has it.

    The job unpickles its function by name. Uninstalled (`python -m flows.poc` in a checkout) that
    needs the checkout on the path; installed packages need nothing.
    """
    file = Path(sys.modules[module].__file__ or "").resolve()
    depth = module.count(".") + (file.name == "__init__.py")
    root = file.parents[depth]
    return None if root.name in {"site-packages", "dist-packages"} else str(root)


def _warn_of_memory(resources: Resources) -> None:
    total = psutil.virtual_memory().total / 1e9
    if resources.memory_gb is not None and resources.memory_gb > total:
        logger.warning(
            "The job asks for %g GB of memory; this machine has %.0f GB.",
            resources.memory_gb,
            total,
        )
