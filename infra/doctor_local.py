"""What can be said of a profile for this machine before anything is started.

checks = check_machine(cluster, Path("runs"))
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

from infra.cluster import ClusterConfig
from infra.doctor_checks import Check, bad, good, note

_LITTLE_GB = 10.0
_MODEL_GB = 4.0


def check_machine(cluster: ClusterConfig) -> list[Check]:
    """Check the device and the memory."""
    memory = psutil.virtual_memory().total / 1e9
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [_device(cluster)]
    needed = _MODEL_GB * cluster.limits.max_jobs
    text = f"{cores} cores, {memory:.0f} GB of memory, {cluster.limits.max_jobs} jobs at once"
    if memory < needed:
        found.append(
            note(f"{text}: a small model takes some {_MODEL_GB:g} GB", "Lower limits.max_jobs.")
        )
    else:
        found.append(good(text))
    return found


def check_base(base: Path) -> list[Check]:
    """Check the folder that everything is written to."""
    there = next(each for each in (base, *base.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return [
            bad(
                f"{there} cannot be written to",
                "Make it, mend its permissions, or choose another with --workspace or `storage`.",
            )
        ]
    free = shutil.disk_usage(there).free / 1e9
    if free < _LITTLE_GB:
        return [note(f"{base} has {free:.1f} GB free", "Models and checkpoints need more.")]
    return [good(f"{base} can be written to, {free:.0f} GB free")]


def check_storage(cluster: ClusterConfig, workspace: Path | None) -> list[Check]:
    """Check the folder that a cluster's nodes are said to share."""
    storage = cluster.storage
    if storage is None:
        return []
    if not storage.is_dir():
        return [
            bad(
                f"storage {storage} is not there",
                f"`mkdir -p {storage}`, or name another folder in `storage`.",
            )
        ]
    if workspace and not workspace.resolve().is_relative_to(storage.resolve()):
        return [
            bad(
                f"the workspace {workspace} is not below storage {storage}",
                "Choose a workspace there; nodes are sure to see nothing else.",
            )
        ]
    return check_base(workspace or storage)


def _device(cluster: ClusterConfig) -> Check:
    import torch

    has = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if cluster.device == "auto":
        return good(f"models run on {next(name for name, there in has.items() if there)}")
    if not has[cluster.device]:
        there = ", ".join(name for name, is_there in has.items() if is_there)
        return bad(
            f"device is {cluster.device}, but PyTorch {torch.__version__} sees none",
            f"Set `device` to auto or one of: {there}; or install the driver and the right "
            "build of PyTorch.",
        )
    return good(f"models run on {cluster.device}")
