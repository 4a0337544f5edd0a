"""The flow itself as a Slurm job, where the cluster profile says `driver: slurm`.

said = sent_away(settings, "python -m flows.poc", arguments)    # None: it runs here
"""

from __future__ import annotations

from collections.abc import Sequence

from ccai_core.config import Config
from flows.config import RunConfig
from flows.session import read_cluster
from infra.slurm_driver import is_driver_job, submit_driver


def sent_away(settings: Config, prog: str, arguments: Sequence[str]) -> str | None:
    """Submit the command as a job and say how to follow it; None: it is to run in this process.

    Raises:
        ConfigError: the workspace is not where nodes see it, or there is no Slurm here.
        JobRefusedError: Slurm does not take it, or another command's driver is in the workspace.
    """
    if not isinstance(settings, RunConfig) or is_driver_job():
        return None
    cluster = read_cluster(settings)
    if cluster.driver != "slurm":
        return None
    module = prog.removeprefix("python -m ")
    job = submit_driver(module, arguments, cluster, settings.workspace)
    state = "is now" if job.is_new else "is already"
    return (
        f"The driver {state} Slurm job {job.job_id}. This command need not wait for it.\n"
        f"follow      tail -F {job.log}\n"
        f"stop        scancel {job.job_id}\n"
        "Stopped, killed or requeued, it goes on where it was: give the same command again."
    )
