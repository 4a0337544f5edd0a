"""What sbatch says when it does not take a job, in the words of the profile.

raise refusal(stderr, record, cluster)
"""

from __future__ import annotations

from ccai_core.errors import JobRefusedError
from infra.cluster import ClusterConfig
from infra.job_record import JobRecord

# What sbatch writes; the keys of the profile that it is about; how to see what would be right.
_MEANINGS = (
    ("invalid partition", ("partition",), "`sinfo -s` lists the partitions."),
    (
        "invalid account or account/partition",
        ("account", "partition"),
        "`sacctmgr show assoc user=$USER format=account,partition,qos` lists yours.",
    ),
    ("invalid account", ("account",), "`sacctmgr show assoc user=$USER` lists yours."),
    ("invalid qos", ("qos",), "`sacctmgr show assoc user=$USER format=account,qos` lists yours."),
    ("invalid feature", ("constraint",), "`sinfo -o '%n %f'` lists the nodes' features."),
    ("invalid generic resource", ("gpu_type", "gpus_per_node"), "`sinfo -o '%n %G'` lists GPUs."),
    ("reservation", ("reservation",), "`scontrol show reservation` lists them."),
    ("invalid node name", ("exclude",), "`sinfo -N` lists the nodes."),
    ("time limit", ("minutes",), "`sinfo -o '%P %l'` lists the partitions' limits."),
    ("memory specification", ("memory_gb", "memory_per_gpu_gb"), "`sinfo -o '%n %m'` lists MB."),
    (
        "node configuration is not available",
        ("gpu_type", "gpus_per_node", "cpus_per_gpu", "memory_per_gpu_gb", "cpus", "memory_gb"),
        "No node of the partition has that much; `sinfo -o '%P %n %c %m %G'` lists what they have.",
    ),
    ("more processors requested", ("cpus", "cpus_per_gpu"), "`sinfo -o '%n %c'` lists cores."),
    ("node count", ("partition",), "`sinfo -s` lists how many nodes the partitions have."),
    ("submit limit", (), "End or await some of your jobs: `squeue --me`."),
    ("job violates accounting", (), "End or await some of your jobs: `squeue --me`."),
    ("unrecognized option", ("sbatch",), "`sbatch --help` lists the options."),
)


def refusal(said: str, record: JobRecord, cluster: ClusterConfig) -> JobRefusedError:
    """Return the error for a job that sbatch did not take."""
    lines = [line for line in said.splitlines() if line.strip()]
    last = lines[-1].removeprefix("sbatch: ").removeprefix("error: ") if lines else "no reason"
    hint = "Its options come from the profile; `--dry-run` shows the script."
    for words, keys, how in _MEANINGS:
        if words in said.lower():
            hint = f"{_named(keys, record, cluster)} {how}".strip()
            break
    asked = record.resources
    return JobRefusedError(
        f"Slurm does not take job {record.key!r} ({asked.nodes} nodes, {asked.gpus} GPUs each): "
        f"{last.rstrip('.')}. {hint}"
    )


def _named(keys: tuple[str, ...], record: JobRecord, cluster: ClusterConfig) -> str:
    values = {key: getattr(cluster, key) for key in keys}
    shown = ", ".join(f"{key} = {value!r}" for key, value in values.items() if value is not None)
    return f"In the profile {cluster.name!r} (role {record.role}): {shown}." if shown else ""
