"""What `flows.serve` registers: deployments of Prefect, made from what is offered.

deployments = [deployment_of(offer, config) for offer in all_offers()]
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import yaml
from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron, Schedule
from prefect.types.entrypoint import EntrypointType

from flows.offers import Offer, all_offers
from flows.serve_config import ServeConfig
from infra.provenance import code_version

_POOL = "ccai"
_HEAD = """\
# Every flow as a deployment, for workers of a work pool instead of one `python -m flows.serve`:
#
#   prefect work-pool create ccai --type process
#   prefect deploy --all
#   prefect worker start --pool ccai
#
# Written by `python -m flows.serve --prefect-yaml`; docs/serve.md tells more.
"""


class Switches(NamedTuple):
    """What people can switch off on the server."""

    deployment: bool = True
    schedule: bool = True


ALL_ON = Switches()


def deployment_of(offer: Offer, config: ServeConfig, on: Switches = ALL_ON) -> RunnerDeployment:
    """Return the deployment that is registered for what is offered."""
    made = offer.flow.to_deployment(
        offer.name,
        description=offer.description,
        tags=list(offer.tags),
        parameters={"config": _values(offer, config)},
        version=code_version(),
        paused=not on.deployment,
        schedule=_schedule(offer, config, on.schedule),
        # By module, so that a flow's process finds its neighbours as the command line does.
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return cast(RunnerDeployment, made)


def switches_of(offer: Offer) -> Switches:
    """Return what is on now: registering would switch on what somebody has switched off."""
    with get_client(sync_client=True) as client:
        try:
            there = client.read_deployment_by_name(offer.full_name)
        except ObjectNotFound:
            return ALL_ON
    schedules = there.schedules
    return Switches(not there.paused, not schedules or any(each.active for each in schedules))


def plan_serve(config: ServeConfig) -> str:
    """Say which deployments there would be."""
    offers = all_offers()
    wide = max(len(offer.full_name) for offer in offers)
    lines = [
        f"  {offer.full_name:<{wide}}  {', '.join(offer.tags)}{_when(offer, config)}"
        for offer in offers
    ]
    limits = ", ".join(f"{name} {limit}" for name, limit in config.all_limits.items())
    return "\n".join(
        [f"{len(offers)} deployments:", *lines, f"Flow runs at a time on a cluster: {limits}"]
    )


def prefect_yaml(config: ServeConfig) -> str:
    """Return the project file of `prefect deploy --all`: the same deployments."""
    project = {
        "name": "ccai",
        "deployments": [_project_entry(offer, config) for offer in all_offers()],
    }
    return f"{_HEAD}{yaml.safe_dump(project, sort_keys=False, width=100)}".rstrip()


def _project_entry(offer: Offer, config: ServeConfig) -> dict[str, Any]:
    module, _, name = offer.entrypoint.rpartition(".")
    entry: dict[str, Any] = {
        "name": offer.name,
        "entrypoint": f"{module.replace('.', '/')}.py:{name}",
        "description": offer.description,
        "tags": list(offer.tags),
        "parameters": {"config": _values(offer, config)},
        "work_pool": {"name": _POOL},
    }
    if offer.nightly:
        entry["schedules"] = [{"cron": config.cron, "timezone": config.time_zone}]
    return entry


def _values(offer: Offer, config: ServeConfig) -> dict[str, Any]:
    if not offer.nightly:
        return offer.values
    # A night is due when its schedule says so.
    due = {"at": config.nightly_at.isoformat("minutes"), "time_zone": config.time_zone}
    return {**offer.values, **due}


def _schedule(offer: Offer, config: ServeConfig, is_on: bool) -> Schedule | None:
    return Cron(config.cron, timezone=config.time_zone, active=is_on) if offer.nightly else None


def _when(offer: Offer, config: ServeConfig) -> str:
    return f", at {config.cron} ({config.time_zone})" if offer.nightly else ""
