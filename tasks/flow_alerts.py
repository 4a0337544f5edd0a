"""Tell people when a flow run that nobody watches fails or crashes: hooks of Prefect.

    @flow(name="poc", persist_result=False, **TELLS)
    def poc(config: PoCConfig) -> Summary: ...

A flow run of a deployment always tells; one that a command line started tells when there are alert
addresses. A crashed run cannot tell itself: the process that started it does, `flows.serve`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict, get_type_hints

from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow, FlowStateHook

from ccai_core.types import fingerprint
from tasks.alerts import Alerts, addresses
from tasks.pages import page_of_flow_run

_MOST = 500


class Hooks(TypedDict):
    """What the decorator of a flow takes."""

    on_failure: list[FlowStateHook[..., Any]]
    on_crashed: list[FlowStateHook[..., Any]]


def tell_of_end(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Alert that the flow run ended in a state that nobody wanted."""
    if flow_run.deployment_id is None and not addresses():
        return
    said = (state.message or "It left no message.")[:_MOST]
    Alerts(_workspace(flow, flow_run)).say(
        # The same failure of the same flow is one piece of news.
        f"flow/{flow.name}/{state.name}/{fingerprint(said)}",
        f"Flow {flow.name}: {flow_run.name} {state.name.lower() if state.name else 'ended'}",
        f"{said}\n{page_of_flow_run(flow_run.id) or f'Flow run {flow_run.id}'}",
    )


TELLS: Hooks = {"on_failure": [tell_of_end], "on_crashed": [tell_of_end]}


def _workspace(flow: Flow[..., Any], flow_run: FlowRun) -> Path:
    """Return the folder that remembers what was said: that of the flow run's settings."""
    given = flow_run.parameters.get("config", {})
    # As it was sent: a form sends what was filled in, a command line the settings.
    values = given if isinstance(given, dict) else given.model_dump()
    fields = get_type_hints(flow.fn)["config"].model_fields
    return Path(values.get("workspace", fields["workspace"].default)).expanduser()
