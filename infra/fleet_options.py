"""What the commands of `python -m infra.fleet` take, and the plan that `up` makes of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from ccai_core.config import Config, parse_config
from ccai_core.errors import FleetError
from infra.cluster import ClusterConfig, EngineName, FleetDefaults
from infra.engines import ServeSpec
from infra.fleet_plan import FleetFiles, FleetPlan

WORKSPACE = Path("runs/fleets")


class Up(Config):
    """Start a fleet and look after it here, until Ctrl-C ends it.

    Prints one URL and a table. What is not given comes from the `fleet` section of the profile.
    """

    model: str = Field(description="Folder of the model, or its name on the hub.")
    cluster: str = Field("local", description="Cluster profile: a name, or a path to YAML.")
    engine: EngineName | None = Field(None, description="Inference engine.")
    instances: int | None = Field(None, ge=1, le=512, description="Instances to ask for.")
    min_instances: int | None = Field(
        None, ge=1, description="Below this, lost ones are replaced without long pauses."
    )
    gpus: int | None = Field(None, ge=0, le=64, description="GPUs of an instance.")
    cpus: int | None = Field(None, ge=1, description="Processor cores of an instance.")
    memory_gb: float | None = Field(None, gt=0, description="Memory of an instance in GB.")
    minutes: float | None = Field(
        None, gt=0, description="Time limit of an instance; then it is queued again."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Precision; auto: the engine's choice."
    )
    revision: str | None = Field(None, description="Commit, tag or branch on the hub.")
    served_name: str = Field("", description="Name under which it is served; empty: the model's.")
    max_length: int | None = Field(None, ge=16, description="Context window in tokens.")
    max_parallel: int | None = Field(None, ge=1, description="Requests of an instance at once.")
    ready_minutes: float | None = Field(
        None, gt=0, description="Longest wait from an instance's start to its first token."
    )
    name: str = Field("", description="Name of the fleet; empty: made from the model's.")
    workspace: Path = Field(WORKSPACE, description="Folder that every node sees.")
    router: bool = Field(True, description="Serve one URL for all instances on this machine.")
    router_host: str = Field("127.0.0.1", description="Address that the router listens on.")
    router_port: int = Field(0, ge=0, le=65535, description="Its port; 0: the last one, or any.")
    dry_run: bool = Field(False, description="Say what would be submitted, and its cost.")


class _Existing(Config):
    name: str = Field("", description="Name of the fleet; empty: the only one there is.")
    workspace: Path = Field(WORKSPACE, description="The folder that `up` was given.")


class Status(_Existing):
    """Show a fleet that runs elsewhere: a table, once."""


class Scale(_Existing):
    """Change the number of instances of a fleet that runs elsewhere."""

    # Its bounds are checked where it is used: tyro would answer with pydantic's own words.
    instances: tyro.conf.Positional[int] = Field(description="Instances to have, 1 to 512.")


class Down(_Existing):
    """End a fleet, also one whose driver is gone."""


Command = (
    Annotated[Up, tyro.conf.subcommand("up")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[Scale, tyro.conf.subcommand("scale")]
    | Annotated[Down, tyro.conf.subcommand("down")]
)


def make_plan(asked: Up, cluster: ClusterConfig) -> FleetPlan:
    """Return the plan: what was asked, then the profile's `fleet`, then its role of that name.

    Raises:
        ConfigError: a value is out of range, or the profile cannot serve this engine.
    """
    defaults = cluster.fleet or FleetDefaults(engine="transformers")
    role = cluster.for_role("fleet")
    name = asked.engine or defaults.engine
    gpus = defaults.gpus if asked.gpus is None else asked.gpus
    instances = asked.instances or defaults.instances
    cpus = asked.cpus or (role.cpus if not gpus else None)
    # Another engine than the profile's has neither its program nor its options.
    same = name == defaults.engine
    serve = {
        "engine": name,
        # A folder by its whole path: a container does not start where the command did.
        "model": str(Path(asked.model).resolve()) if Path(asked.model).is_dir() else asked.model,
        "served_name": asked.served_name or asked.model,
        "revision": asked.revision,
        "dtype": asked.dtype,
        "device": cluster.device,
        "gpus": gpus,
        "cpus": cpus,
        "max_length": asked.max_length or defaults.max_length,
        "max_parallel": asked.max_parallel or defaults.max_parallel,
        "executable": defaults.executable if same else None,
        "options": defaults.options if same else (),
        "container": cluster.container,
    }
    plan = {
        "name": asked.name or _slug(asked.served_name or asked.model),
        "serve": parse_config(ServeSpec, serve, "fleet up"),
        "instances": instances,
        "min_instances": asked.min_instances or min(defaults.min_instances, instances),
        "cpus": cpus,
        "memory_gb": asked.memory_gb or (role.memory_gb if not gpus else None),
        "minutes": asked.minutes or role.minutes,
        "ready_minutes": asked.ready_minutes or defaults.ready_minutes,
    }
    return parse_config(FleetPlan, plan, "fleet up")


def existing(asked: Status | Scale | Down) -> FleetFiles:
    """Return the files of the fleet that is meant.

    Raises:
        FleetError: there is none of that name, or several and none was named.
    """
    folder = asked.workspace / "fleets"
    known = sorted(each.parent.name for each in folder.glob("*/plan.json"))
    if not known:
        raise FleetError(f"{folder}: no fleet was ever started here. Name its --workspace.")
    if asked.name and asked.name not in known:
        raise FleetError(f"{folder}: there is no fleet {asked.name!r}; there are: {_list(known)}.")
    if not asked.name and len(known) > 1:
        raise FleetError(f"{folder}: which fleet? Give --name, one of: {_list(known)}.")
    return FleetFiles(folder / (asked.name or known[0]))


def _slug(model: str) -> str:
    words = re.sub(r"[^a-z0-9.]+", "-", Path(model).name.lower()).strip("-.")
    return words[:60] or "fleet"


def _list(names: list[str]) -> str:
    return ", ".join(names)
