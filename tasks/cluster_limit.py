"""How many flow runs work on a cluster at a time: a limit that the Prefect server keeps.

    set_limits({"local": 1})            # python -m flows.serve does
    with cluster_slot("local"):         # every flow run of a deployment does
        ...

Where nobody has set a limit for a cluster there is none, and a flow that a command line started
asks for none: its user sees what else runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.runtime import deployment

from tasks.cancellation import Watch

_LOOK_EVERY_S = 5.0
# Renewed meanwhile; the slot of a flow run that was killed is free after this long.
_LEASE_S = 60.0
_PREFIX = "ccai-cluster-"


def limit_name(cluster: str) -> str:
    """Return the name of a cluster's limit in the Prefect UI, its profile being a file or not."""
    return _PREFIX + re.sub(r"[^\w-]", "-", Path(cluster).stem)


def set_limits(limits: Mapping[str, int]) -> None:
    """Set the limits on the server, whatever they were before."""
    with get_client(sync_client=True) as client:
        for cluster, limit in limits.items():
            client.upsert_global_concurrency_limit_by_name(limit_name(cluster), limit)


@contextmanager
def cluster_slot(cluster: str) -> Iterator[None]:
    """Wait until the cluster's limit lets another flow run in, and count as one meanwhile.

    Raises:
        FlowCancelled: the flow run was cancelled while it waited.
    """
    if not _is_limited(cluster):
        yield
        return
    watch, waited = Watch(), False
    with ExitStack() as held:
        while True:
            slot = concurrency(
                limit_name(cluster),
                timeout_seconds=_LOOK_EVERY_S,
                lease_duration=_LEASE_S,
                # A server that is away for a while does not end hours of work.
                raise_on_lease_renewal_failure=False,
            )
            try:
                held.enter_context(slot)
                break
            except TimeoutError:
                if not waited:
                    get_run_logger().info("Waits: %r has as many flow runs as it may.", cluster)
                waited = True
                watch.check()
        yield


def _is_limited(cluster: str) -> bool:
    """Whether it counts: Prefect would warn of a limit that is not there, in every flow run."""
    if deployment.get_id() is None:
        return False
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(limit_name(cluster))
        except ObjectNotFound:
            return False
    return True
