"""Find and end every process of a lab; as a program, do it when the lab's owner is gone.

The owner holds the other end of the guard's standard input. However the owner ends, that pipe
closes, and the guard ends the daemons, the jobs and the drivers of the lab and removes its folder.

    python tests/cluster/lab_guard.py FOLDER
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import psutil

COOKIE = "CCAI_SLURM_LAB"
"""Environment variable with the lab's folder, in all that belongs to the lab."""

_GIVE_UP_S = 20.0


def lab_processes(folder: Path) -> list[psutil.Process]:
    """Return what belongs to a lab: its daemons, its jobs, and what tests started to use it.

    A job need not have the cookie (sbatch --export=NONE), but Slurm tells every job where its
    configuration is. A person's shell has that too, and is spared: it is in no job.
    """
    spared = {os.getpid(), *(each.pid for each in psutil.Process().parents())}
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            if _belongs(process, folder):
                found.add(process)
                found.update(process.children(recursive=True))
        except (psutil.Error, OSError):
            continue
    return [each for each in found if each.pid not in spared and _is_living(each)]


def _belongs(process: psutil.Process, folder: Path) -> bool:
    if process.name().startswith("slurm"):
        # slurmstepd writes its title over its environment, and outlives its slurmd.
        logs = str(folder / "log") + os.sep
        if any(file.path.startswith(logs) for file in process.open_files()):
            return True
    environment = process.environ()
    conf = str(folder / "etc" / "slurm.conf")
    in_job = "SLURM_JOB_ID" in environment and environment.get("SLURM_CONF") == conf
    return in_job or environment.get(COOKIE) == str(folder)


def end_lab(folder: Path) -> None:
    """Kill all that belongs to a lab and remove its folder: nothing in it is worth a farewell."""
    deadline = time.monotonic() + _GIVE_UP_S
    while members := lab_processes(folder):
        for process in members:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(members, timeout=0.2)
        if time.monotonic() > deadline:
            raise RuntimeError(f"{members} of the lab {folder} survive SIGKILL")
    # A process that was killed may have left the kernel a moment later than our look.
    for _ in range(5):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.2)


def _is_living(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.stdin.read()
    end_lab(Path(sys.argv[1]))
