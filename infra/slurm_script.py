"""What is said to sbatch: a profile and a job's resources as options, setup lines and variables.

Everything a user can name is data: quoted where a shell reads it, refused where it cannot be. The
driver's environment does not travel: a list of harmless names does, and the profile's `secrets`, by
name only, so that no value stands in a script, a command line or a pickle.

    executor.update_parameters(**parameters(call, cluster))
"""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ccai_core.errors import ConfigError
from infra.backends import Call
from infra.cluster import ClusterConfig
from infra.job_imports import import_root
from infra.job_record import JobRecord, Resources
from infra.processes import COOKIE

_PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_[A-Z]+|TZ|LD_LIBRARY_PATH|VIRTUAL_ENV|SLURM_CONF"
    r"|CONDA_(PREFIX|DEFAULT_ENV)|MODULEPATH|MODULESHOME|LMOD_\w+"
    r"|(HF|HUGGINGFACE|TRANSFORMERS|TOKENIZERS|DATASETS)_\w+|XDG_CACHE_HOME"
    r"|(OMP|MKL|NCCL|UCX|TORCH|VLLM|CCAI)_\w+|PREFECT_API_URL|MLFLOW_TRACKING_URI"
    r"|(HTTPS?|NO|ALL)_PROXY|(https?|no|all)_proxy|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE"
)
_SECRET = re.compile(r"TOKEN(?!IZERS)|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|_KEY$", re.I)
_OURS = frozenset({
    "array", "error", "export", "export-file", "get-user-env", "job-name", "no-requeue",
    "open-mode", "output", "parsable", "quiet", "requeue", "signal", "test-only", "wait", "wrap",
})  # fmt: skip
# What a profile or a job says in words of its own; said twice, one of the two would not count.
_HAVE_A_KEY = {
    "account": "account", "partition": "partition", "qos": "qos", "constraint": "constraint",
    "reservation": "reservation", "exclude": "exclude", "time": "minutes",
    "cpus-per-task": "cpus", "cpus-per-gpu": "cpus_per_gpu", "mem": "memory_gb",
    "mem-per-gpu": "memory_per_gpu_gb", "gpus-per-node": "gpus_per_node, gpu_type",
}  # fmt: skip
_BEFORE_LIMIT_S = 90
# Where `module` comes from differs; a batch script's shell is no login shell.
_FIND_MODULES = (
    "for file in /etc/profile.d/lmod.sh /etc/profile.d/z00_lmod.sh /etc/profile.d/modules.sh; do\n"
    '  type module > /dev/null 2>&1 || { [ -r "$file" ] && . "$file"; }\n'
    "done"
)
# srun gives up on Slurm's controller after some seconds (SlurmctldTimeout), and the job would have
# failed before its function began. (1: it is away; 127: there is no scontrol here.)
_WAIT_FOR_CONTROLLER = (
    "for try in {1..120}; do\n"
    "  scontrol ping > /dev/null 2>&1\n"
    "  [ $? = 1 ] || break\n"
    "  sleep 5\n"
    "done"
)


def check(record: JobRecord, cluster: ClusterConfig, folder: Path) -> None:
    """Refuse what the profile, the file system or Slurm's own syntax cannot do.

    Raises:
        ConfigError: says which key or path is wrong, and what would be right.
    """
    check_storage(cluster, folder)
    asked, most = record.resources.gpus, cluster.gpus_per_node
    if most is not None and asked > most:
        raise ConfigError(
            f"Job {record.key!r} asks for {asked} GPUs a node; cluster {cluster.name!r} has "
            f"{most} (gpus_per_node). Ask for at most {most}, or for more nodes."
        )
    for name in sorted(_OURS & set(cluster.sbatch)):
        raise ConfigError(
            f"Cluster {cluster.name!r}: sbatch.{name} is set by the platform itself and cannot be "
            "changed. Remove it from the profile."
        )
    for name in sorted(_HAVE_A_KEY.keys() & set(cluster.sbatch)):
        raise ConfigError(
            f"Cluster {cluster.name!r}: sbatch.{name} is said by a key of the profile: "
            f"{_HAVE_A_KEY[name]}. Use that instead."
        )


def check_storage(cluster: ClusterConfig, folder: Path) -> None:
    """Refuse a folder that not every node sees, or that cannot be written.

    Raises:
        ConfigError: says which, and what would be right.
    """
    storage = (cluster.storage or folder).expanduser().resolve()
    here = folder.expanduser().resolve()
    if not here.is_relative_to(storage):
        raise ConfigError(
            f"The workspace {here.parent} is not below {storage}, which is what cluster "
            f"{cluster.name!r} says every node sees (storage). Choose a workspace there."
        )
    if not storage.is_dir() or not os.access(_existing(here), os.W_OK | os.X_OK):
        raise ConfigError(
            f"{_existing(here) if storage.is_dir() else storage} cannot be written to (storage of "
            f"cluster {cluster.name!r}). Make it, mend its permissions, or name another one."
        )
    # Slurm replaces %j and the like in the names of log files, and takes \ for an escape.
    wrong = re.search(r"[%\\\x00-\x1f\x7f]", str(here))
    if wrong:
        raise ConfigError(
            f"The workspace's path {str(here)!r} holds {wrong.group()!r}, which Slurm cannot have "
            "in the name of a log file. Choose another folder."
        )


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def minutes(resources: Resources, cluster: ClusterConfig) -> float | None:
    """Return the time limit of a job in whole minutes, as Slurm counts them."""
    asked = resources.minutes or cluster.minutes
    return None if asked is None else float(math.ceil(asked))


def python(cluster: ClusterConfig) -> str:
    """Return the shell words that start the jobs' Python."""
    # -P: a file of the working directory called like one of our modules must not replace it.
    return f"{shlex.quote(cluster.python or sys.executable)} -P"


def parameters(call: Call, cluster: ClusterConfig) -> dict[str, Any]:
    """Return the parameters of submitit's SlurmExecutor for a call."""
    record, asked = call.record, call.record.resources
    taken = cpus(asked, cluster)
    limit = record.minutes
    return {
        "job_name": record.name,
        "time": None if limit is None else int(limit),
        "nodes": asked.nodes,
        "ntasks_per_node": asked.tasks_per_node,
        "cpus_per_task": taken,
        "mem": memory(asked, cluster),
        "gres": _gres(asked, cluster),
        "wckey": None,
        "signal_delay_s": _before_limit(limit, record.unwind_seconds),
        "setup": setup([__name__, call.function.__module__], asked.gpus, taken, cluster),
        # Since 22.05 srun does not look at the job's own --cpus-per-task.
        "srun_args": [
            "--kill-on-bad-exit=1",
            "--export=ALL",
            *([f"--cpus-per-task={taken}"] if taken else []),
        ],
        "array_parallelism": record.at_once or 1,
        "additional_parameters": options(asked, cluster),
    }


def options(asked: Resources, cluster: ClusterConfig) -> dict[str, Any]:
    """Return the options of sbatch that the profile says, by their long names."""
    named = {
        "account": cluster.account,
        "partition": cluster.partition,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "reservation": cluster.reservation,
        "exclude": cluster.exclude,
        "requeue" if asked.checkpointable else "no-requeue": True,
        "export": ",".join(passed_on(os.environ, cluster.secrets)),
    }
    said = {**named, **cluster.sbatch}
    return {name: value for name, value in said.items() if value not in (None, False)}


def passed_on(environment: Mapping[str, str], secrets: tuple[str, ...]) -> list[str]:
    """Return the names of the variables that go from the driver to its jobs."""
    harmless = {
        name
        for name in environment
        if _PASSED_ON.fullmatch(name) and not _SECRET.search(name) and name != COOKIE
    }
    return sorted(harmless | (set(secrets) & set(environment)))


def setup(modules: Sequence[str], gpus: int, cpus: int | None, cluster: ClusterConfig) -> list[str]:
    """Return the shell lines before the job's command; only `setup` of the profile is shell.

    Args:
        modules: those that the job must be able to import.
        gpus: what it asks for.
        cpus: what it asks for.
        cluster: the profile.
    """
    roots = dict.fromkeys(import_root(each) for each in modules)
    path = [*(root for root in roots if root), os.environ.get("PYTHONPATH", "")]
    variables = {"PYTHONPATH": os.pathsep.join(each for each in path if each)}
    if cpus:
        variables["OMP_NUM_THREADS"] = str(cpus)
    if gpus == 0:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    variables |= cluster.environment
    loads = [f"module load {shlex.quote(name)} || exit 1" for name in cluster.modules]
    return [
        *([_FIND_MODULES, *loads] if loads else []),
        *cluster.setup,
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        _WAIT_FOR_CONTROLLER,
    ]


def cpus(asked: Resources, cluster: ClusterConfig) -> int | None:
    """Return the CPUs of each task; None: as many as Slurm gives."""
    if asked.cpus is not None:
        return asked.cpus
    if asked.gpus and cluster.cpus_per_gpu:
        return max(1, asked.gpus * cluster.cpus_per_gpu // asked.tasks_per_node)
    return None if asked.gpus else cluster.cpus


def memory(asked: Resources, cluster: ClusterConfig) -> str | None:
    """Return the memory of a node in Slurm's words; None: as Slurm has it."""
    gigabytes = asked.memory_gb
    if gigabytes is None and asked.gpus and cluster.memory_per_gpu_gb:
        gigabytes = asked.gpus * cluster.memory_per_gpu_gb
    elif gigabytes is None and not asked.gpus:
        gigabytes = cluster.memory_gb
    # Slurm's M are 2^20 bytes.
    return None if gigabytes is None else f"{math.ceil(gigabytes * 1e9 / 2**20)}M"


def _gres(asked: Resources, cluster: ClusterConfig) -> str | None:
    if not asked.gpus:
        return None
    kind = f"{cluster.gpu_type}:" if cluster.gpu_type else ""
    return f"gpu:{kind}{asked.gpus}"


def _before_limit(limit: float | None, unwind_seconds: float) -> int:
    """Return how many seconds before its limit a job is asked to leave."""
    wanted = max(_BEFORE_LIMIT_S, math.ceil(unwind_seconds) + 30)
    return wanted if limit is None else min(wanted, int(limit * 60 / 2))
