"""How many flow runs work at a time, on a cluster and of a deployment: limits on the server.

    set_limits({"local": 1}, {"poc/quick": 1})       # python -m flows.serve does
    with run_slot("local"):                          # every flow run of a deployment does
        ...

Where nobody has set a limit there is none, and a flow that a command line started asks for none:
its user sees what else runs. Prefect's own limit of a deployment is not used: it ends a flow run
whose server was away for a while.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run

from tasks.cancellation import Watch

_LOOK_EVERY_S = 5.0
# Renewed meanwhile; the slot of a flow run that was killed is free after this long.
_LEASE_S = 300.0


def cluster_limit(cluster: str) -> str:
    """Return the name of a cluster's limit in the Prefect UI, its profile being a file or not."""
    return _name("cluster", Path(cluster).stem)


def deployment_limit(full_name: str) -> str:
    """Return the name of a deployment's limit, the deployment being called `flow/name`."""
    return _name("deployment", full_name)


def set_limits(clusters: Mapping[str, int], deployments: Mapping[str, int]) -> None:
    """Set the limits on the server, whatever they were before."""
    limits = {cluster_limit(name): limit for name, limit in clusters.items()}
    limits |= {deployment_limit(name): limit for name, limit in deployments.items()}
    with get_client(sync_client=True) as client:
        for name, limit in limits.items():
            client.upsert_global_concurrency_limit_by_name(name, limit)


@contextmanager
def run_slot(cluster: str) -> Iterator[None]:
    """Wait until the limits let another flow run in, and count as one meanwhile.

    Raises:
        FlowCancelled: the flow run was cancelled while it waited.
    """
    names = _limits_of_this_run(cluster)
    if not names:
        yield
        return
    watch, waited = Watch(), False
    with ExitStack() as held:
        while True:
            slot = concurrency(
                names,
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
                    get_run_logger().info("Waits: as many flow runs as may be are there already.")
                waited = True
                watch.check()
        yield


def _limits_of_this_run(cluster: str) -> list[str]:
    """Return those that are there: Prefect would warn of others, in every flow run."""
    if deployment.get_id() is None:
        return []
    full_name = f"{flow_run.get_flow_name()}/{deployment.get_name()}"
    wanted = [cluster_limit(cluster), deployment_limit(full_name)]
    with get_client(sync_client=True) as client:
        return [name for name in wanted if _is_there(client, name)]


def _is_there(client: SyncPrefectClient, name: str) -> bool:
    try:
        client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        return False
    return True


def _name(of: str, what: str) -> str:
    return f"ccai-{of}-" + re.sub(r"[^\w-]", "-", what)
