"""What the doctor wants to know of a node: a plain function that runs there as a job.

It looks and reports; what the findings mean is for `infra.doctor_jobs` to say, which knows what the
driver sees.

    report = submit(probe, request, ...).result()
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from pydantic import Field

from ccai_core.config import Config
from ccai_core.errors import FleetError
from infra.cluster import ClusterConfig
from infra.ports import listen, machine_name, url_of

_ANSWER_S = 10.0


class ProbeRequest(Config):
    """What to look at."""

    cluster: ClusterConfig = Field(description="The profile, as it is for the job's role.")
    folder: Path = Field(description="Folder of the driver, with the file `nonce` in it.")
    reply: str = Field(description="Name of the file to write there.")
    urls: tuple[str, ...] = Field((), description="Servers that must be reachable.")
    executable: str | None = Field(None, description="Program that must be found.")


class ProbeReport(Config):
    """What a node found. Empty texts mean that there is nothing to complain about."""

    node: str = Field(description="Name of the node.")
    python: str = Field(description="Version of Python there.")
    nonce: str = Field(description="What it read in the driver's file; empty: nothing.")
    storage_problem: str = Field(description="Why it could not read or write there.")
    free_gb: float = Field(description="Free space there, 10^9 bytes.")
    cache: Path = Field(description="Where the hub's files are kept.")
    cache_problem: str = Field(description="Why they cannot be.")
    cached_models: int = Field(description="How many models are there.")
    address_problem: str = Field(description="Why no server can listen at the profile's address.")
    listened_at: str = Field(description="Where one could.")
    unreachable: dict[str, str] = Field(description="URLs that do not answer, and why.")
    container_problem: str = Field(description="What of the container runtime is missing.")
    missing_images: tuple[str, ...] = Field(description="Image files that are not there.")
    executable_problem: str = Field(description="Why the engine's program cannot be started.")
    visible_gpus: str = Field(description="CUDA_VISIBLE_DEVICES.")
    gpu_names: tuple[str, ...] = Field(description="What nvidia-smi lists.")
    unset_secrets: tuple[str, ...] = Field(description="Secrets that did not arrive.")


def probe(request: ProbeRequest) -> ProbeReport:
    """Look at the machine this runs on."""
    cluster = request.cluster
    nonce, storage_problem = _exchange(request.folder, request.reply)
    cache = hub_cache()
    at, address_problem = _try_to_listen(cluster.address)
    return ProbeReport(
        node=machine_name(),
        python=platform.python_version(),
        nonce=nonce,
        storage_problem=storage_problem,
        free_gb=shutil.disk_usage(request.folder).free / 1e9 if request.folder.is_dir() else 0.0,
        cache=cache,
        cache_problem=_cache_problem(cache),
        cached_models=len(list(cache.glob("models--*"))),
        address_problem=address_problem,
        listened_at=at,
        unreachable={url: said for url in request.urls if (said := why_unreachable(url))},
        container_problem=_container_problem(cluster.container.runtime),
        missing_images=_missing_images(cluster),
        executable_problem=_executable_problem(request.executable),
        visible_gpus=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        gpu_names=_gpu_names(),
        unset_secrets=tuple(name for name in cluster.secrets if not os.environ.get(name)),
    )


def hub_cache() -> Path:
    """Return where huggingface_hub keeps what it has loaded, by the same rules as it."""
    named = os.environ.get("HF_HUB_CACHE")
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME") or f"{base}/huggingface"
    return Path(named or f"{home}/hub").expanduser()


def why_unreachable(url: str) -> str:
    """Return why a server does not answer; any answer will do, also a refusal."""
    try:
        # The schemes are checked by who asks: http and https.
        with urllib.request.urlopen(url, timeout=_ANSWER_S):  # noqa: S310
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, HTTPException, ValueError) as error:
        return str(getattr(error, "reason", error))


def _exchange(folder: Path, reply: str) -> tuple[str, str]:
    try:
        nonce = (folder / "nonce").read_text(encoding="ascii")
        (folder / reply).write_text(nonce, encoding="ascii")
    except OSError as error:
        return "", f"{error.strerror} ({error.filename})"
    return nonce, ""


def _cache_problem(cache: Path) -> str:
    there = next(each for each in (cache, *cache.parents) if each.exists())
    if os.access(there, os.W_OK | os.X_OK):
        return ""
    # Models that are there already can be used without writing.
    return f"{there} cannot be written to" if there != cache else f"{cache} is read-only"


def _try_to_listen(address: str) -> tuple[str, str]:
    try:
        with listen(address) as server:
            url = url_of(server)
            # Some firewalls drop what a machine sends to its own address.
            host, port = server.getsockname()[:2]
            with socket.create_connection((host, port), timeout=_ANSWER_S):
                return url, ""
    except (FleetError, OSError) as error:
        return "", str(error)


def _container_problem(runtime: str) -> str:
    if runtime == "none":
        return ""
    if runtime == "apptainer":
        return "" if shutil.which("apptainer") else "`apptainer` is not on PATH"
    if shutil.which("enroot") is None:
        return "`enroot` is not on PATH"
    offered = _output("srun", "--help")
    return "" if "--container-image" in offered else "srun has no --container-image: no pyxis"


def _missing_images(cluster: ClusterConfig) -> tuple[str, ...]:
    if cluster.container.runtime == "none":
        return ()
    files = [image for image in cluster.container.images.values() if image.startswith(("/", "."))]
    return tuple(image for image in files if not Path(image).is_file())


def _executable_problem(executable: str | None) -> str:
    if executable is None or shutil.which(executable):
        return ""
    return f"`{executable}` is not there, or cannot be run"


def _gpu_names() -> tuple[str, ...]:
    return tuple(_output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines())


def _output(*command: str) -> str:
    """Return what a command prints; nothing where there is no such command or it fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(  # noqa: S603 - constant words, no shell
        command, capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout if done.returncode == 0 else ""
