"""Where work runs: a cluster profile, read from YAML by name or by path.

Profiles ship in `cluster_configs/`; your own live in a folder on `$CCAI_CLUSTER_PATH` or in the
working directory. Nothing above `infra` looks inside one.

    cluster = load_cluster("local")
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import Field

from ccai_core.config import Config, load_yaml, parse_config
from ccai_core.errors import ConfigError, did_you_mean

SEARCH_VARIABLE = "CCAI_CLUSTER_PATH"


class ClusterConfig(Config):
    """One profile: which machine or cluster, and the limits it sets on jobs."""

    name: str = Field(description="What the profile is called in commands, logs and reports.")
    kind: Literal["local"] = Field(description="How jobs are started: local (this machine).")
    device: Literal["auto", "cuda", "mps", "cpu"] = Field(
        "auto", description="What models run on; auto takes CUDA, then MPS, then the CPU."
    )
    max_jobs: int = Field(
        2, ge=1, description="Jobs that run at once out of one workspace; others wait."
    )
    lease_seconds: float = Field(
        60.0, ge=1, description="A job ends itself when its driver has been gone this long."
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
            f"Unknown cluster {asked!r}.{did_you_mean(asked, found)} "
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
