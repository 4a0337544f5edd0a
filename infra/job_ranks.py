"""How the processes of one job find each other: the first says where it can be reached.

Each gets the variables that torch.distributed reads (RANK, WORLD_SIZE, LOCAL_RANK,
LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT), so that the submitted function needs to know nothing
of Slurm.

    meet(attempt, start=0, address="hostname")
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import submitit

from ccai_core.errors import JobError
from ccai_core.files import write_whole
from infra.ports import listen, machine_name

# Those of one job start within seconds of each other, containers and slow disks included.
_MEETING_S = 600.0
_LOOK_S = 0.2


def meet(attempt: Path, start: int, address: str) -> None:
    """Set the variables; harmless in a job of one process.

    Args:
        attempt: The folder of the job's attempt, which all its machines see.
        start: Which start of it this is.
        address: What the cluster profile says of where servers listen.

    Raises:
        FleetError: this machine has no such address.
        JobError: the first process did not say where it is.
    """
    job = submitit.JobEnvironment()
    if job.num_tasks == 1:
        return
    place = attempt / f"meeting-{start}.json"
    if job.global_rank == 0:
        # Free now; nobody else of this job takes one, and torch will say so if another did.
        with listen(address) as server:
            host, port = server.getsockname()[:2]
        write_whole(place, json.dumps({"host": host, "port": port}))
    host, port = _found(place)
    os.environ.update(
        RANK=str(job.global_rank),
        WORLD_SIZE=str(job.num_tasks),
        LOCAL_RANK=str(job.local_rank),
        LOCAL_WORLD_SIZE=str(job.num_tasks // job.num_nodes),
        MASTER_ADDR=host,
        MASTER_PORT=str(port),
    )
    if address != "hostname":
        interface = "lo" if address == "loopback" else address
        # What a name resolves to is no help where the profile names the way to go.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)


def _found(place: Path) -> tuple[str, int]:
    deadline = time.monotonic() + _MEETING_S
    while time.monotonic() < deadline:
        try:
            said = json.loads(place.read_text(encoding="utf-8"))
            return str(said["host"]), int(said["port"])
        except FileNotFoundError:
            time.sleep(_LOOK_S)
    raise JobError(
        f"{machine_name()}: the first process of this job has not said where it is within "
        f"{_MEETING_S:g} s ({place})."
    )
