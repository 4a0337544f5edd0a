"""Start a deployment through the API, as the UI does when its form is sent, and follow it.

summary = run_demo(DemoConfig(values={"max_pairs": "8"}))
"""

from __future__ import annotations

import time
from typing import Any

import httpx
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings

from ccai_core.errors import ConfigError, JobError
from flows.results import Summary
from flows.stack_config import DemoConfig
from flows.stack_steps import places_of

_LOOK_EVERY_S, _AWAY_S = 2.0, 10.0
_REGISTERING_S = 120.0


def plan_demo(config: DemoConfig) -> str:
    """Say what would be started.

    Raises:
        ConfigError: the services are not running.
    """
    values = ", ".join(f"{name} = {value}" for name, value in _changes(config).items())
    return f"Starts {config.deployment} at {places_of(config)['prefect']}, with {values}"


def run_demo(config: DemoConfig) -> Summary:
    """Start the deployment and follow it to its end.

    Raises:
        ConfigError: there is no such deployment, or a value does not suit its form.
        JobError: the flow run did not complete.
    """
    places = places_of(config)
    at = {PREFECT_API_URL: f"{places['prefect']}/api"}
    with temporary_settings(at), get_client(sync_client=True) as client:
        run = _start(client, config)
        page = f"{places['prefect']}/runs/flow-run/{run.id}"
        print(f"{run.name}: {page}", flush=True)
        try:
            ended = _follow(client, run, config.wait)
        except KeyboardInterrupt:
            raise JobError(f"Followed no longer; {run.name} goes on: {page}") from None
    if ended.state is None or not ended.state.is_completed():
        said = f"{ended.state_name}: {ended.state.message}" if ended.state else "without a state"
        raise JobError(f"{run.name} ended {said}. See {page}")
    return Summary(
        made={"flow run": page, "MLflow": places["mlflow"]},
        findings=(f"{run.name} completed in {ended.total_run_time.total_seconds():.0f} s.",),
    )


def filled_form(begun_with: dict[str, Any], values: dict[str, str]) -> dict[str, Any]:
    """Return a form's parameters with some fields changed; `a.b` is field b of group a."""
    config = dict(begun_with.get("config", {}))
    for name, text in values.items():
        *groups, field = name.split(".")
        at = config
        for group in groups:
            at[group] = dict(at.get(group, {}))
            at = at[group]
        at[field] = yaml.safe_load(text)
    return {**begun_with, "config": config}


def _changes(config: DemoConfig) -> dict[str, str]:
    return {"model": config.model, **config.values}


def _start(client: SyncPrefectClient, config: DemoConfig) -> FlowRun:
    until = time.monotonic() + _REGISTERING_S
    while True:
        try:
            deployment = client.read_deployment_by_name(config.deployment)
            break
        except ObjectNotFound:
            # `flows.serve` may still be registering.
            if time.monotonic() > until:
                raise ConfigError(f"There is no deployment {config.deployment!r}.") from None
            time.sleep(_LOOK_EVERY_S)
    parameters = filled_form(deployment.parameters, _changes(config))
    try:
        return client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    except PrefectHTTPStatusError as error:
        raise ConfigError(
            f"{config.deployment} does not take these values: {error.response.text:.500}"
        ) from None


def _follow(client: SyncPrefectClient, run: FlowRun, wait: float) -> FlowRun:
    until, shown = time.monotonic() + wait, ""
    while time.monotonic() < until:
        try:
            run = client.read_flow_run(run.id)
        except httpx.TransportError as error:
            # The flow run goes on without its server, and so does who follows it.
            print(f"  The server does not answer ({type(error).__name__}).", flush=True)
            time.sleep(_AWAY_S)
            continue
        if run.state_name and run.state_name != shown:
            shown = run.state_name
            print(f"  {shown}", flush=True)
        if run.state is not None and run.state.is_final():
            return run
        time.sleep(_LOOK_EVERY_S)
    return run
