"""Where work runs: a cluster profile, read from YAML by name or by path.

Profiles ship in `cluster_configs/`; your own live in a folder on `$CCAI_CLUSTER_PATH` or in the
working directory. Nothing above `infra` looks inside one.

    cluster = load_cluster("slurm-pyxis")
    cluster.for_role("train").partition
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from ccai_core.config import Config, load_yaml, parse_config
from ccai_core.errors import ConfigError, closest

SEARCH_VARIABLE = "CCAI_CLUSTER_PATH"

Role = Literal["driver", "fleet", "train", "evaluate"]
"""What a job is for: `driver` runs a step that is none of the others."""

EngineName = Literal["tgi", "vllm", "sglang", "transformers", "llamacpp"]

# They stand in the header of a script and in file names: no line break, no control character.
Word = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x1f\x7f]+$", max_length=256)]
Line = Annotated[str, StringConstraints(pattern=r"^[^\n\r\x00]*$", max_length=4096)]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
SbatchOption = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]


class RoleConfig(Config):
    """What one role's jobs ask for; as the top level of a profile, and in `roles` to differ."""

    account: Word | None = Field(None, description="Account (project) that is charged.")
    partition: Word | None = Field(None, description="Partition; several with commas.")
    qos: Word | None = Field(None, description="Quality of service.")
    constraint: Word | None = Field(None, description="Node features, as sbatch --constraint.")
    reservation: Word | None = Field(None, description="Reservation to run in.")
    exclude: Word | None = Field(None, description="Nodes not to run on, as sbatch --exclude.")
    minutes: float | None = Field(
        None, gt=0, description="Time limit of a job that names none; then it may be requeued."
    )
    gpu_type: Word | None = Field(None, description="Type of GPU as in sinfo -o %G, e.g. h100.")
    gpus_per_node: int | None = Field(None, ge=0, le=64, description="GPUs a node has.")
    cpus_per_gpu: int | None = Field(None, ge=1, description="CPUs that come with each GPU.")
    memory_per_gpu_gb: float | None = Field(
        None, gt=0, description="Memory (10^9 bytes) that comes with each GPU."
    )
    cpus: int | None = Field(None, ge=1, description="CPUs of a job without GPUs.")
    memory_gb: float | None = Field(None, gt=0, description="Memory (GB) of a job without GPUs.")
    sbatch: dict[SbatchOption, Line | int | bool] = Field(
        default_factory=dict,
        description="Further sbatch options by long name, e.g. {mail-type: FAIL}.",
    )


class Container(Config):
    """How inference engines are wrapped into container images."""

    runtime: Literal["none", "pyxis", "apptainer"] = Field(
        "none", description="none: the engine is installed; pyxis: srun --container-image."
    )
    images: dict[EngineName, Word] = Field(
        default_factory=dict, description="Image of each engine: a registry's or a file's name."
    )
    mounts: tuple[Word, ...] = Field((), description="Mounts, host:container[:ro].")


class Limits(Config):
    """What one flow run may take."""

    max_jobs: int = Field(2, ge=1, description="Jobs at once out of one workspace; others wait.")
    max_gpus: int | None = Field(None, ge=0, description="GPUs at once; a job beyond waits.")
    max_gpu_hours: float | None = Field(
        None, ge=0, description="GPU hours of one flow run; a job beyond them is refused."
    )


class FleetDefaults(Config):
    """What an inference fleet of this cluster looks like unless a command says otherwise."""

    engine: EngineName = Field("vllm", description="Inference engine.")
    instances: int = Field(1, ge=1, le=512, description="Instances to ask for.")
    min_instances: int = Field(1, ge=1, description="Below this, lost ones are replaced.")
    gpus: int = Field(0, ge=0, le=64, description="GPUs of an instance (tensor parallel).")
    max_parallel: int = Field(64, ge=1, description="Requests an instance works on at once.")
    tokens_per_second: float | None = Field(
        None,
        gt=0,
        description="What an instance writes at its best, by its own benchmark; for estimates.",
    )
    max_length: int | None = Field(
        None, ge=16, description="Context window in tokens; none: the model's own."
    )
    ready_minutes: float = Field(
        30, gt=0, description="Longest wait from a started instance to its first token."
    )
    executable: Line | None = Field(
        None,
        description="Path of the engine's program or Python, where it is not the one on PATH.",
    )
    options: tuple[Line, ...] = Field((), description="Further words on the engine's command line.")


class ClusterConfig(RoleConfig):
    """One profile: which machine or cluster, and the limits it sets on jobs."""

    name: str = Field(description="What the profile is called in commands, logs and reports.")
    kind: Literal["local", "slurm"] = Field(
        description="How jobs are started: local (this machine) or slurm (sbatch)."
    )
    device: Literal["auto", "cuda", "mps", "cpu"] = Field(
        "auto", description="What models run on; auto takes CUDA, then MPS, then the CPU."
    )
    driver: Literal["here", "slurm"] = Field(
        "here", description="Where a flow itself runs: here, or slurm (a job of the role driver)."
    )
    lease_seconds: float = Field(
        60.0, ge=1, description="A job ends itself when its driver has been gone this long."
    )
    limits: Limits = Field(default=Limits(), description="What one flow run may take.")
    storage: Path | None = Field(
        None,
        description="Root that every node sees under the same path; workspaces lie below it. "
        "~ and $NAME are replaced.",
    )
    address: Word = Field(
        "loopback",
        description="Where servers listen: loopback (one host), hostname, or an interface's name.",
    )
    python: Line | None = Field(
        None, description="Python of the jobs; unset: the driver's, which every node must see."
    )
    environment: dict[VariableName, Line] = Field(
        default_factory=dict, description="Variables set in jobs, e.g. HF_HOME. Nothing secret."
    )
    secrets: tuple[VariableName, ...] = Field(
        (), description="Names of variables whose values go from your environment to the jobs."
    )
    modules: tuple[Word, ...] = Field((), description="Modules loaded before a job's program.")
    setup: tuple[Line, ...] = Field((), description="Shell lines run before a job's program.")
    container: Container = Field(
        default=Container(), description="How inference engines are containered."
    )
    fleet: FleetDefaults | None = Field(
        None, description="Text comes from inference servers; unset: from the step's own process."
    )
    roles: dict[Role, RoleConfig] = Field(
        default_factory=dict, description="What differs for fleet, train, evaluate or driver jobs."
    )

    @field_validator("storage")
    @classmethod
    def _is_written_out(cls, storage: Path | None) -> Path | None:
        if storage is None:
            return None
        written = os.path.expandvars(storage.expanduser())
        unset = re.search(r"\$\{?(\w+)", written)
        if unset:
            raise ValueError(
                f"the environment variable {unset[1]} is not set; run `export {unset[1]}=...` with "
                "the folder that every node sees, or write that folder into a copy of the profile"
            )
        if not Path(written).is_absolute():
            raise ValueError("must be a whole path, from / on: nodes have no working directory")
        return Path(written)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.driver == "slurm" and self.kind != "slurm":
            raise ValueError("driver: slurm needs kind: slurm; leave `driver` out")
        if self.kind == "slurm" and self.storage is None:
            raise ValueError("storage is missing: a folder that every node sees under this path")
        if self.fleet and self.container.runtime != "none":
            image = self.container.images.get(self.fleet.engine)
            if image is None:
                raise ValueError(
                    f"container.images has no image for the engine {self.fleet.engine!r}; it has: "
                    f"{', '.join(sorted(self.container.images)) or 'none'}"
                )
        return self

    def for_role(self, role: Role) -> ClusterConfig:
        """Return the profile with what `roles` says of `role` put over it."""
        own = self.roles.get(role)
        if own is None:
            return self
        said: dict[str, Any] = {name: getattr(own, name) for name in own.model_fields_set}
        if "sbatch" in said:
            said["sbatch"] = {**self.sbatch, **own.sbatch}
        return self.model_copy(update=said)

    def gpus_of_model(self, role: Role) -> int:
        """Return the GPUs to ask for where a job of `role` runs a model in its own process."""
        if self.device not in {"auto", "cuda"}:
            return 0
        # Here "auto" takes what there is; a scheduler has to be told.
        return 1 if self.kind == "local" or self.for_role(role).gpus_per_node else 0

    def beside_driver(self) -> ClusterConfig:
        """Return a profile for work that only asks others: a process on the driver's machine."""
        return ClusterConfig(
            name=f"{self.name}-driver",
            kind="local",
            device="cpu",
            lease_seconds=self.lease_seconds,
            environment=self.environment,
        )


def load_cluster(name_or_path: str | Path) -> ClusterConfig:
    """Read a profile by its name (`local`) or from a file (`./my-laptop.yaml`).

    A shipped name wins over a file of the same name, so that `local` means the same everywhere.

    Raises:
        ConfigError: no such profile (lists those there are), or a key or value in it is wrong.
    """
    asked = str(name_or_path)
    if _is_path(asked):
        return _read(Path(asked).expanduser())
    found = available_clusters()
    if asked not in found:
        raise ConfigError(
            f"Unknown cluster {asked!r}.{closest(asked, found)} "
            f"Available: {', '.join(sorted(found))}. Profiles are searched in the package, in "
            f"${SEARCH_VARIABLE} and in {Path.cwd()}; a path to a .yaml file works too."
        )
    return _read(found[asked])


def available_clusters() -> dict[str, Path]:
    """Return every profile that can be named here, with the file it comes from."""
    found: dict[str, Path] = {}
    for file in _candidates():
        found.setdefault(file.stem, file)
    return found


def _is_path(asked: str) -> bool:
    return Path(asked).suffix in {".yaml", ".yml"} or Path(asked).name != asked


def _candidates() -> Iterator[Path]:
    # The packages are installed as plain files (never zipped), so a resource is a real path.
    yield from _yaml_files(Path(str(resources.files("cluster_configs"))))
    for folder in os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep):
        if folder:
            yield from _yaml_files(Path(folder).expanduser())
    # A working directory holds all kinds of YAML; only profiles say `kind:` at the top level.
    yield from (file for file in _yaml_files(Path.cwd()) if _says_kind(file))


def _yaml_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])


def _says_kind(file: Path) -> bool:
    text = file.read_bytes()[:65536] if os.access(file, os.R_OK) and file.is_file() else b""
    return re.search(rb"^kind\s*:", text, re.MULTILINE) is not None


def _read(file: Path) -> ClusterConfig:
    return parse_config(ClusterConfig, {"name": file.stem, **load_yaml(file)}, where=str(file))
