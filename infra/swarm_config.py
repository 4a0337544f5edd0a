"""What a swarm should be: llm-swarm's configuration, ours that extends it, and the plan of both.

FleetConfig(model="some/model", inference_engine="transformers", gpus=0, instances=2)
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from llm_swarm import LLMSwarmConfig  # type: ignore[import-untyped]

from ccai_core.config import parse_config
from ccai_core.errors import ConfigError
from infra.cluster import ClusterConfig, Container, FleetDefaults, Limits, load_cluster
from infra.fleet_options import Up, make_plan
from infra.fleet_plan import FleetPlan
from infra.swarm_template import Template, can_run, install, placeholders, read_template

logger = logging.getLogger(__name__)

CLUSTER_VARIABLE = "CCAI_CLUSTER"
"""Names the profile of scripts that name none."""

# llm-swarm's own bounds of what a template is told.
_LONGEST, _ROOM_TO_WRITE = 32768, 100
# Its default of 500 requests is for servers with paged memory; ours computes whole batches.
_LARGEST_BATCH = 32
# Slurm's own limits count; jobs of other swarms in the same workspace must not.
_NO_LIMIT = 10_000
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass
class FleetConfig(LLMSwarmConfig):  # type: ignore[misc]  # llm-swarm has no types
    """llm-swarm's configuration, with what it cannot say; every default is as with llm-swarm."""

    inference_engine: Literal["tgi", "vllm", "sglang", "transformers", "llamacpp"] = "tgi"
    """inference engine to use"""
    name: str = ""
    """name of the fleet, under which a restarted script finds it again; empty: a new one"""
    cluster: str = ""
    """cluster profile, a name or a path; empty: $CCAI_CLUSTER, else plain Slurm, else local"""
    workspace: str = "runs/fleets"
    """folder that every node sees"""
    min_instances: int = 1
    """below this, lost instances are replaced without long pauses"""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """precision; auto: the engine's choice"""
    max_length: int | None = None
    """context window in tokens; none: the model's own"""
    cpus: int | None = None
    """processor cores of an instance"""
    memory_gb: float | None = None
    """memory of an instance in GB"""
    minutes: float | None = None
    """time limit of an instance; then it is queued again"""
    ready_minutes: float | None = None
    """longest wait from an instance's start to its first token"""
    executable: str | None = None
    """path of the engine's program or Python, where it is not the one on PATH"""
    options: list[str] = field(default_factory=list)
    """further words on the engine's command line"""


@dataclass(frozen=True)
class Setup:
    """All that a `Fleet` is made from."""

    plan: FleetPlan
    cluster: ClusterConfig
    folder: Path
    jobs: Path


def extended(config: LLMSwarmConfig) -> FleetConfig:
    """Return ours; llm-swarm's own becomes one with our defaults.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(config, FleetConfig):
        return config
    if not isinstance(config, LLMSwarmConfig):
        raise ConfigError(
            f"A swarm takes a FleetConfig or an LLMSwarmConfig, not {type(config).__name__}."
        )
    return FleetConfig(**{each.name: getattr(config, each.name) for each in fields(config)})


def set_up(config: FleetConfig, model_max_length: Callable[[], int]) -> Setup:
    """Turn a configuration into a fleet's plan and place.

    Args:
        config: What was asked for.
        model_max_length: Tells the tokenizer's longest text; asked only by a template.

    Raises:
        ConfigError: a value is out of range, or the profile cannot serve this.
    """
    name = config.name or f"swarm-{_slug(config.model)}-{uuid.uuid4().hex[:8]}"
    workspace = Path(config.workspace).expanduser().resolve()
    folder = workspace / "fleets" / name
    cluster = _cluster(config, workspace)
    asked: dict[str, Any] = {}
    template = _template(config, model_max_length)
    if template is not None:
        asked = template.asks.plan
        cluster = template.on(cluster)
    asked_up = parse_config(Up, {**_plain(config, name), **asked}, "FleetConfig")
    if template is not None:
        # Only now: nothing is written for a configuration that is refused.
        config = _through(config, install(template, folder, config.inference_engine))
    plan = make_plan(asked_up, _serving(config, cluster, contained=template is None))
    return Setup(plan, cluster, folder, workspace / "jobs")


def _plain(config: FleetConfig, name: str) -> dict[str, Any]:
    same = (
        "model instances min_instances gpus cpus memory_gb minutes dtype max_length ready_minutes"
    )
    batch = config.per_instance_max_parallel_requests
    if config.inference_engine == "transformers":
        batch = min(batch, _LARGEST_BATCH)
    return {
        **{each: getattr(config, each) for each in same.split()},
        "engine": config.inference_engine,
        "max_parallel": batch,
        # `main` is what every engine takes by itself, and a GGUF file has none.
        "revision": None if config.revision == "main" else config.revision,
        "name": name,
        "workspace": Path(config.workspace),
    }


def _serving(config: FleetConfig, cluster: ClusterConfig, *, contained: bool) -> ClusterConfig:
    """Return the profile with the configuration's own program and options as its fleet's."""
    default = cluster.fleet
    if default is None or default.engine != config.inference_engine:
        default = FleetDefaults(engine=config.inference_engine)
    said = {
        "executable": config.executable or default.executable,
        "options": tuple(config.options) or default.options,
    }
    fleet = parse_config(FleetDefaults, {**default.model_dump(), **said}, "FleetConfig")
    # A template brings its own container.
    container = cluster.container if contained else Container()
    return cluster.model_copy(update={"fleet": fleet, "container": container})


def _through(config: FleetConfig, program: str) -> FleetConfig:
    values: Mapping[str, Any] = {each.name: getattr(config, each.name) for each in fields(config)}
    return FleetConfig(**{**values, "executable": program})


def _template(config: FleetConfig, model_max_length: Callable[[], int]) -> Template | None:
    file = Path(config.slurm_template_path).expanduser()
    if not file.is_file():
        logger.info("There is no template %s: the engine is started by its adapter.", file)
        return None
    if not can_run(config.inference_engine):
        raise ConfigError(
            f"slurm_template_path {str(file)!r}: a template runs tgi or vllm, not "
            f"{config.inference_engine!r}. Set slurm_template_path='' to use the adapter."
        )
    if config.executable or config.options:
        raise ConfigError(
            f"slurm_template_path {str(file)!r}: the template has its own command line; leave "
            "executable and options out, or set slurm_template_path=''."
        )
    text = file.read_text(encoding="utf-8")
    values = {"model": config.model, "revision": config.revision, "gpus": str(config.gpus)}
    if {"model_max_length", "model_input_length"} & placeholders(text):
        longest = min(config.max_length or model_max_length(), _LONGEST)
        values["model_max_length"] = str(longest)
        values["model_input_length"] = str(max(longest - _ROOM_TO_WRITE, longest // 2))
    return read_template(file, text, values)


def _cluster(config: FleetConfig, workspace: Path) -> ClusterConfig:
    named = config.cluster or os.environ.get(CLUSTER_VARIABLE, "")
    if named:
        return load_cluster(named)
    if shutil.which("sbatch") is None:
        return load_cluster("local")
    # As llm-swarm has it: the working directory is shared, and the template says the rest.
    return ClusterConfig(
        name="slurm",
        kind="slurm",
        storage=workspace,
        address="hostname",
        secrets=_SECRETS,
        limits=Limits(max_jobs=_NO_LIMIT),
    )


def _slug(model: str) -> str:
    words = re.sub(r"[^a-z0-9.]+", "-", Path(model).name.lower()).strip("-.")
    return words[:60] or "fleet"
