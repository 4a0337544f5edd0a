"""The configuration files of a lab: munge's key, MariaDB, slurmdbd, slurm.conf, gres.conf.

write_conf(Layout(folder=Path("/tmp/lab"), port=21000))
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

ADDRESS = "127.0.0.1"
CLUSTER = "lab"
PORTS = 500
"""How many ports, from its base, belong to a lab."""


@dataclass(frozen=True)
class Layout:
    """What a lab looks like, and where its files are."""

    folder: Path
    port: int
    nodes: int = 4
    cpus: int = 4
    gpus: int = 2
    gpu_type: str = "fake"
    memory_mb: int = 16384
    accounting: bool = True
    signal_on_preemption: bool = True

    @property
    def conf(self) -> Path:
        return self.folder / "etc" / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        return self.folder / "run" / "munge.sock"

    @property
    def mysql_socket(self) -> Path:
        return self.folder / "run" / "mysql.sock"

    def log(self, name: str) -> Path:
        return self.folder / "log" / f"{name}.log"

    @property
    def node_names(self) -> list[str]:
        return [f"node{number}" for number in range(1, self.nodes + 1)]


def write_conf(layout: Layout) -> None:
    """Write all that the daemons read."""
    folder = layout.folder
    for name in ("dev", "etc", "log", "munge", "mysql", "run", "spool", "state"):
        (folder / name).mkdir()
    for node in layout.node_names:
        (folder / "spool" / node).mkdir()
    _write_private(folder / "munge" / "munge.key", secrets.token_bytes(128))
    (folder / "etc" / "slurm.conf").write_text(_slurm(layout))
    (folder / "etc" / "cgroup.conf").write_text("CgroupAutomount=no\n")
    (folder / "etc" / "gres.conf").write_text(_gres(layout))
    # Without a device file slurmd registers no GPU; a link to /dev/null passes for one.
    for number in range(layout.gpus):
        (folder / "dev" / f"nvidia{number}").symlink_to("/dev/null")
    if layout.accounting:
        (folder / "etc" / "my.cnf").write_text(_mariadb(layout))
        _write_private(folder / "etc" / "slurmdbd.conf", _slurmdbd(layout).encode())


def _write_private(file: Path, content: bytes) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as opened:
        opened.write(content)


def listens_on_loopback_only() -> bool:
    """Whether Slurm can be told to: with No*InAddrAny it binds what the host's name resolves to."""
    try:
        return socket.gethostbyname(socket.gethostname()) == ADDRESS
    except OSError:
        return False


def _slurm(layout: Layout) -> str:
    folder, port, me = layout.folder, layout.port, getpass.getuser()
    lines = [
        f"ClusterName={CLUSTER}",
        f"SlurmctldHost=localhost({ADDRESS})",
        f"SlurmctldPort={port}",
        f"SlurmUser={me}",
        f"SlurmdUser={me}",
        "AuthType=auth/munge",
        "CryptoType=crypto/munge",
        # A requeued job may start again only when its credential has expired: 2 minutes by default.
        f"AuthInfo=socket={layout.munge_socket},cred_expire=5",
        f"SrunPortRange={port + 100}-{port + PORTS - 1}",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool/%n",
        f"SlurmctldPidFile={folder}/run/slurmctld.pid",
        f"SlurmdPidFile={folder}/run/slurmd-%n.pid",
        f"SlurmctldLogFile={layout.log('slurmctld')}",
        f"SlurmdLogFile={folder}/log/slurmd-%n.log",
        "SlurmctldDebug=info",
        "SlurmdDebug=info",
        # Without cgroups: they need root, and are not there in most containers.
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=2",
        "SwitchType=switch/none",
        "MpiDefault=none",
        "MailProg=/bin/true",
        # A node whose slurmd was killed comes back by itself; nodes may be larger than the machine.
        "ReturnToService=2",
        "SlurmdParameters=config_overrides",
        "SlurmdTimeout=30",
        "SlurmctldTimeout=10",
        "InactiveLimit=0",
        "KillWait=5",
        "MaxArraySize=10001",
        "MaxJobCount=20000",
        "MinJobAge=300",
        "JobRequeue=1",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,"
        "bf_interval=2,bf_resolution=1,preempt_youngest_first",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        "DefMemPerCPU=100",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "GresTypes=gpu",
    ]
    if listens_on_loopback_only():
        lines.append("CommunicationParameters=NoInAddrAny,NoCtldInAddrAny")
    if layout.signal_on_preemption:
        lines.append("SlurmctldParameters=preempt_send_user_signal")
    lines += _accounting(layout)
    gres = f" Gres=gpu:{layout.gpu_type}:{layout.gpus}" if layout.gpus else ""
    lines += [
        f"NodeName={node} NodeHostname=localhost NodeAddr={ADDRESS} Port={port + 10 + number} "
        f"CPUs={layout.cpus} RealMemory={layout.memory_mb}{gres} State=UNKNOWN"
        for number, node in enumerate(layout.node_names)
    ]
    common = "Nodes=ALL MaxTime=INFINITE DefaultTime=10 State=UP"
    lines += [
        f"PartitionName=main Default=YES {common} PriorityTier=10 PreemptMode=OFF",
        f"PartitionName=low {common} PriorityTier=1 PreemptMode=REQUEUE GraceTime=5",
        f"PartitionName=kill {common} PriorityTier=1 PreemptMode=REQUEUE GraceTime=0",
        f"PartitionName=high {common} PriorityTier=20 PreemptMode=OFF",
    ]
    return "\n".join(lines) + "\n"


def _accounting(layout: Layout) -> list[str]:
    if not layout.accounting:
        return ["AccountingStorageType=accounting_storage/none"]
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={ADDRESS}",
        f"AccountingStoragePort={layout.port + 1}",
        f"AccountingStoragePass={layout.munge_socket}",
        "AccountingStorageTRES=gres/gpu",
        # As on real clusters: who names an account or a qos that is not theirs is refused.
        "AccountingStorageEnforce=associations,qos",
    ]


def _gres(layout: Layout) -> str:
    if not layout.gpus:
        return ""
    devices = f"{layout.folder}/dev/nvidia[0-{layout.gpus - 1}]"
    return "".join(
        f"NodeName={node} Name=gpu Type={layout.gpu_type} File={devices}\n"
        for node in layout.node_names
    )


def _mariadb(layout: Layout) -> str:
    return f"""[mysqld]
datadir={layout.folder}/mysql
socket={layout.mysql_socket}
pid-file={layout.folder}/run/mariadb.pid
log-error={layout.log("mariadb")}
user={getpass.getuser()}
skip-networking
skip-log-bin
skip-name-resolve
performance_schema=0
innodb_buffer_pool_size=64M
innodb_log_file_size=16M
innodb_lock_wait_timeout=900
# Nothing in it has to survive a power cut.
innodb_flush_log_at_trx_commit=0
innodb_flush_method=nosync
innodb_doublewrite=0
"""


def _slurmdbd(layout: Layout) -> str:
    only_loopback = "CommunicationParameters=NoInAddrAny\n" if listens_on_loopback_only() else ""
    return f"""AuthType=auth/munge
AuthInfo=socket={layout.munge_socket}
DbdHost=localhost
DbdAddr={ADDRESS}
DbdPort={layout.port + 1}
{only_loopback}SlurmUser={getpass.getuser()}
PidFile={layout.folder}/run/slurmdbd.pid
LogFile={layout.log("slurmdbd")}
DebugLevel=info
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={getpass.getuser()}
StorageLoc=slurm
CommitDelay=1
"""
