"""A driver as a job of its own, for clusters whose login nodes end long processes.

The very command that was typed runs on a node, once more each time the job is requeued: what it
has done so far is in the workspace, so it goes on from there. Before its time limit it goes back
into the queue by itself.

    job = submit_driver("flows.preference_data", ["--preset", "scaling"], cluster, workspace)
    print(job.job_id, job.log)
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from ccai_core.config import Config
from ccai_core.errors import JobRefusedError
from ccai_core.files import write_whole
from infra import slurm_script
from infra.cluster import ClusterConfig
from infra.job_record import Resources, submit_lock
from infra.slurm_command import SlurmError, run, without_user_defaults

IN_DRIVER_JOB = "CCAI_DRIVER_JOB"
"""Set where the command is to run itself, being in its job already."""

# Slurm's signals come up to a minute late.
_BEFORE_LIMIT_S = 180
_RUN = """\
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1
trap 'kill -TERM "$driver" 2> /dev/null' TERM
{command} &
driver=$!
# A signal ends `wait`, not what it waits for.
until wait "$driver"; status=$?; ! kill -0 "$driver" 2> /dev/null; do :; done
exit "$status"
"""


class DriverJob(Config):
    """A driver's job, as it is written down in the workspace."""

    job_id: str = Field(description="Slurm's id.")
    command: str = Field(description="What runs in it.")
    log: Path = Field(description="What it says.")
    is_new: bool = Field(True, description="Whether it was submitted just now.")


def submit_driver(
    module: str, words: Sequence[str], cluster: ClusterConfig, workspace: Path
) -> DriverJob:
    """Run `python -m module words` as a job of the role `driver`; one that is there is returned.

    Raises:
        ConfigError: the workspace is not where nodes see it, or there is no Slurm here.
        JobRefusedError: Slurm does not take it, or another command's driver is in the workspace.
    """
    profile = cluster.for_role("driver")
    folder = workspace.expanduser().resolve() / "driver"
    slurm_script.check_storage(profile, folder)
    folder.mkdir(parents=True, exist_ok=True)
    command = f"{slurm_script.python(profile)} -m {module} {shlex.join(words)}".strip()
    with submit_lock(folder):
        known = _known(folder / "job.json")
        if known is None:
            return _submit(command, module, profile, folder)
    if known.command != command:
        raise JobRefusedError(
            f"{workspace}: the driver of another command works here as Slurm job {known.job_id}: "
            f"{known.command}. Wait for it, `scancel {known.job_id}`, or choose another workspace."
        )
    return known.model_copy(update={"is_new": False})


def _known(record: Path) -> DriverJob | None:
    """Return the job of this workspace, if it queues or runs."""
    if not record.exists():
        return None
    job = DriverJob.model_validate_json(record.read_text(encoding="utf-8"))
    queued = run("squeue", "--me", "--noheader", "--format=%A").split()
    return job if job.job_id in queued else None


def _submit(command: str, module: str, cluster: ClusterConfig, folder: Path) -> DriverJob:
    asked = Resources(checkpointable=True)
    cpus = slurm_script.cpus(asked, cluster)
    lines = [
        "#!/bin/bash",
        *slurm_script.setup([__name__], asked.gpus, cpus, cluster),
        f"export {IN_DRIVER_JOB}=1",
        _RUN.format(command=command),
    ]
    script, log = folder / "driver.sh", folder / "driver.log"
    write_whole(script, "\n".join(lines))
    minutes = slurm_script.minutes(asked, cluster)
    options = {
        "job-name": f"ccai-{module.rpartition('.')[2].replace('_', '-')}",
        "chdir": str(Path.cwd()),
        "output": str(log),
        "open-mode": "append",
        "signal": f"B:USR1@{_BEFORE_LIMIT_S}",
        "time": None if minutes is None else int(minutes),
        "cpus-per-task": cpus,
        "mem": slurm_script.memory(asked, cluster),
        **slurm_script.options(asked, cluster),
    }
    given = [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in options.items()
        if value is not None
    ]
    try:
        said = run(*without_user_defaults(), "sbatch", "--parsable", *given, str(script))
    except SlurmError as error:
        raise JobRefusedError(
            f"Slurm does not take the driver's job: {error}. Its options come from the profile "
            f"{cluster.name!r} (role driver); the script is {script}."
        ) from None
    job = DriverJob(job_id=said.strip().partition(";")[0], command=command, log=log)
    write_whole(folder / "job.json", job.model_dump_json(indent=2) + "\n")
    return job


def is_driver_job() -> bool:
    """Whether this process is in a driver's job."""
    return bool(os.environ.get(IN_DRIVER_JOB))
