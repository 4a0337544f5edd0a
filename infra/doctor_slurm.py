"""What can be said of a Slurm profile before anything is submitted.

checks = check_slurm(cluster) + check_roles(cluster)
"""

from __future__ import annotations

import getpass
import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from ccai_core.errors import closest
from infra import slurm_command
from infra.cluster import ClusterConfig, Role
from infra.doctor_checks import ROLES, Check, bad, by_role, good, is_loopback, note, servers

_COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
# gpu:h100:8(S:0-1) or gpu:8; other generic resources stand beside it.
_GPUS = re.compile(r"\bgpu:(?:([^:,(]+):)?(\d+)")


@dataclass(frozen=True)
class Node:
    """What one node of a partition has."""

    name: str
    address: str
    cpus: int
    memory_gb: float
    gpus: dict[str, int]
    """Number of each type; type "" is one that Slurm does not name."""

    def has(self, kind: str | None) -> int:
        """Return how many GPUs of a type there are; None: of any."""
        return self.gpus.get(kind, 0) if kind else sum(self.gpus.values())


def check_slurm(cluster: ClusterConfig) -> list[Check]:
    """Check the commands, the controller, the accounting and where servers can be reached."""
    missing = [name for name in _COMMANDS if shutil.which(name) is None]
    if missing:
        return [
            bad(
                f"{', '.join(missing)}: not on PATH",
                "Log in to one of the cluster's machines, load its Slurm module, or choose another "
                "profile with --cluster.",
            )
        ]
    try:
        version = slurm_command.run("sbatch", "--version").strip()
        slurm_command.run("scontrol", "show", "config")
    except slurm_command.SlurmError as error:
        return [
            bad(
                f"Slurm does not answer: {_last_line(error)}",
                "`scontrol ping` shows its controllers.",
            )
        ]
    found = [good(f"{version}; {', '.join(_COMMANDS)} are there and it answers")]
    return [*found, _accounting(), *_addresses(cluster)]


def check_roles(cluster: ClusterConfig) -> list[Check]:
    """Check partition, account, qos, time and hardware of every role; equal ones once."""
    found = [(role, check) for role in ROLES for check in _check_role(cluster.for_role(role), role)]
    return by_role(found)


def nodes(partition: str | None) -> list[Node]:
    """Return the nodes of partitions; None: of the default one."""
    where = partition or _default_partition()
    text = slurm_command.run("sinfo", "-h", "-N", "-p", where, "-o", "%N|%o|%c|%m|%G")
    found = {}
    for line in text.splitlines():
        name, address, cpus, memory, gres = line.split("|", 4)
        gpus: dict[str, int] = {}
        for kind, count in _GPUS.findall(gres):
            gpus[kind] = gpus.get(kind, 0) + int(count)
        gigabytes = float(memory.rstrip("+")) * 2**20 / 1e9
        found[name] = Node(name, address, int(cpus.rstrip("+")), gigabytes, gpus)
    return list(found.values())


def has_several_hosts(cluster: ClusterConfig) -> bool:
    """Whether jobs may run on another machine than this one."""
    here = {socket.gethostname(), "localhost"}
    everywhere = [node.address for role in ROLES for node in _nodes_of(cluster.for_role(role))]
    return any(each not in here and not each.startswith("127.") for each in everywhere)


def _nodes_of(role: ClusterConfig) -> list[Node]:
    try:
        return nodes(role.partition)
    except slurm_command.SlurmError:
        return []  # said by the check of the partition


def _default_partition() -> str:
    names = slurm_command.run("sinfo", "-h", "-o", "%P").split()
    return next((name.rstrip("*") for name in names if name.endswith("*")), "")


def _accounting() -> Check:
    cost = (
        "what became of a job is known only until Slurm forgets it (MinJobAge, here "
        f"{slurm_command.setting('MinJobAge', 'unknown')}), and not who cancelled it"
    )
    if not slurm_command.has_accounting():
        return note(f"no accounting, sacct knows nothing: {cost}. All else works.")
    try:
        slurm_command.run("sacct", "-n", "-X", "-S", "now")
    except slurm_command.SlurmError as error:
        return note(f"sacct fails ({_last_line(error)}): {cost}.", "Tell your administrator.")
    return good("sacct works")


def _addresses(cluster: ClusterConfig) -> Iterator[Check]:
    if not has_several_hosts(cluster):
        return
    if cluster.address == "loopback":
        yield bad(
            "address is loopback, but jobs run on other machines: nobody would reach a server",
            "Set `address: hostname`, or the name of the network interface that the nodes share.",
        )
    for name, url in servers().items():
        if is_loopback(url):
            yield bad(
                f"{name} at {url}: on a node that address means the node itself",
                f"Start it with --host 0.0.0.0 and name this machine: "
                f"http://{socket.gethostname()}:...",
            )


def _check_role(role: ClusterConfig, name: Role) -> Iterator[Check]:
    known = slurm_command.run("sinfo", "-a", "-h", "-o", "%R|%a|%l").splitlines()
    partitions = {name: (is_up, limit) for name, is_up, limit in (ln.split("|") for ln in known)}
    asked = role.partition.split(",") if role.partition else [_default_partition()]
    if asked == [""]:
        yield bad(
            "this Slurm has no default partition",
            f"Set `partition`. There are: {', '.join(sorted(partitions))}.",
        )
        return
    unknown = [each for each in asked if each not in partitions]
    for each in unknown:
        yield bad(
            f"partition {each!r} does not exist",
            f"Set `partition`.{closest(each, partitions)} "
            f"There are: {', '.join(sorted(partitions))}.",
        )
    if unknown:
        return
    for each in asked:
        yield _partition(each, *partitions[each], role)
    yield from _associations(role)
    yield from _hardware(role, name)


def _partition(name: str, is_up: str, limit: str, role: ClusterConfig) -> Check:
    longest = _minutes(limit)
    if is_up != "up":
        return note(f"partition {name!r} is {is_up}: jobs wait", "`scontrol show partition`.")
    if role.minutes is not None and longest is not None and role.minutes > longest:
        return bad(
            f"partition {name!r} ends jobs after {longest:g} minutes; the profile asks for "
            f"{role.minutes:g}",
            f"Set `minutes` to {longest:g} at most; checkpointable jobs continue after it.",
        )
    return good(f"partition {name!r} exists{'' if role.partition else ', the default one'}")


def _minutes(limit: str) -> float | None:
    """Read sinfo's [days-]hours:minutes:seconds; None: without limit."""
    days, _, rest = limit.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in parts):
        return None
    seconds = 0
    for part in parts:
        seconds = 60 * seconds + int(part)
    return (seconds + 86400 * int(days or 0)) / 60


def _associations(role: ClusterConfig) -> Iterator[Check]:
    if not role.account and not role.qos:
        return
    if not slurm_command.has_accounting():
        yield note("account and qos cannot be checked without accounting")
        return
    me = getpass.getuser()
    command = ("sacctmgr", "-n", "-P", "show", "assoc", f"user={me}")
    try:
        text = slurm_command.run(*command, "format=account,partition,qos")
    except slurm_command.SlurmError as error:
        yield note(f"account and qos cannot be checked: {_last_line(error)}")
        return
    mine = [line.split("|") for line in text.splitlines()]
    accounts = {account for account, *_ in mine}
    grade = bad if "associations" in slurm_command.setting("AccountingStorageEnforce") else note
    if role.account and role.account not in accounts:
        yield grade(
            f"account {role.account!r} is not one of yours",
            f"Set `account`.{closest(role.account, accounts)} "
            f"Yours: {', '.join(sorted(accounts)) or 'none; ask your administrator'}.",
        )
        return
    if role.account:
        yield good(f"account {role.account!r} is yours")
    allowed = {
        qos
        for account, _, listed in mine
        if role.account in (None, account)
        for qos in listed.split(",")
        if qos
    }
    if role.qos and role.qos not in allowed:
        yield grade(
            f"qos {role.qos!r} is not open to you",
            f"Set `qos`.{closest(role.qos, allowed)} Yours: {', '.join(sorted(allowed))}.",
        )
    elif role.qos:
        yield good(f"qos {role.qos!r} is yours")


def _hardware(role: ClusterConfig, name: Role) -> Iterator[Check]:
    """Check that some node has what the largest job on one node may ask for."""
    found = nodes(role.partition)
    where = f"partition {role.partition or _default_partition()!r}"
    if not found:
        yield bad(f"{where} has no nodes", "`sinfo -N` lists nodes and their partitions.")
        return
    # A driver's job computes nothing, and often has a partition without GPUs.
    gpus = 0 if name == "driver" else role.gpus_per_node or 0
    if name == "fleet" and role.fleet:
        gpus = max(gpus, role.fleet.gpus)
    fit = [node for node in found if node.has(role.gpu_type) >= gpus]
    kind = f"{role.gpu_type} GPUs" if role.gpu_type else "GPUs"
    if gpus and not fit:
        yield bad(
            f"no node of {where} has {gpus} {kind}",
            f"Set `gpus_per_node` and `gpu_type` (and fleet.gpus). {_shown(found)}",
        )
        return
    if gpus:
        yield good(f"{len(fit)} of {len(found)} nodes of {where} have {gpus} {kind}")
    cpus = max(role.cpus or 1, gpus * (role.cpus_per_gpu or 0))
    memory = max(role.memory_gb or 0, gpus * (role.memory_per_gpu_gb or 0))
    if all(node.cpus < cpus for node in fit):
        yield bad(
            f"no such node of {where} has {cpus} CPUs",
            f"Lower `cpus` or `cpus_per_gpu`: {max(node.cpus for node in fit)} at most in all.",
        )
    if all(node.memory_gb < memory for node in fit):
        most = max(node.memory_gb for node in fit)
        yield bad(
            f"no such node of {where} has {memory:g} GB of memory",
            f"Lower `memory_gb` or `memory_per_gpu_gb`: {most:.0f} GB at most in all.",
        )


def _shown(found: list[Node]) -> str:
    kinds = sorted({_listing(node) for node in found})
    return f"Its nodes have: {'; '.join(kinds)}."


def _listing(node: Node) -> str:
    return " and ".join(f"{n} {kind} GPUs".replace("  ", " ") for kind, n in node.gpus.items()) or (
        "no GPU"
    )


def _last_line(error: slurm_command.SlurmError) -> str:
    return str(error).splitlines()[-1]
