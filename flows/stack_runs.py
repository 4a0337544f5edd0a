"""Cancel what runs before its server is ended: a flow run that is just killed leaves its jobs.

cancel_runs("http://127.0.0.1:4200")
"""

from __future__ import annotations

import time

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

_LOOK_EVERY_S = 1.0
_RUNS = [StateType.RUNNING, StateType.PENDING]
_ENDS = [*_RUNS, StateType.CANCELLING]


def cancel_runs(prefect: str, seconds: float = 90.0) -> int:
    """Cancel every flow run that has begun and wait for its end; returns how many there were."""
    with (
        temporary_settings({PREFECT_API_URL: f"{prefect}/api"}),
        get_client(sync_client=True) as client,
    ):
        try:
            found = client.read_flow_runs(flow_run_filter=_in_state(_RUNS))
            for run in found:
                client.set_flow_run_state(run.id, Cancelling())
            until = time.monotonic() + seconds
            while client.read_flow_runs(flow_run_filter=_in_state(_ENDS)):
                if time.monotonic() > until:
                    break
                time.sleep(_LOOK_EVERY_S)
        except httpx.TransportError:
            # A server that is gone cancels nothing; the jobs end with their leases.
            return 0
        return len(found)


def _in_state(types: list[StateType]) -> FlowRunFilter:
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types)))
