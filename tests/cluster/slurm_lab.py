"""A throw-away Slurm of several nodes on this machine, for tests and for trying things.

It needs neither root nor a network: daemons and jobs run as whoever starts it, on loopback, with
all their files in one short folder of their own. When the lab stops, or its owner is killed, all of
it goes: daemons, jobs, folder.

    with SlurmLab(nodes=2) as lab:
        lab.run("sbatch", "--wrap", "hostname")
        lab.kill("slurmd-node1")

    python tests/cluster/slurm_lab.py --nodes 2             # a shell that uses a fresh lab
    python tests/cluster/slurm_lab.py -- squeue --all       # or one command
"""

from __future__ import annotations

import argparse
import getpass
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.cluster import lab_guard
from tests.cluster.lab_conf import ADDRESS, CLUSTER, PORTS, Layout, write_conf

PACKAGES = "slurm-wlm munge slurmdbd mariadb-server"
_COMMANDS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo")
_BOOK_COMMANDS = ("slurmdbd", "mariadbd", "mariadb", "mariadb-install-db", "sacctmgr", "sacct")
# Debian puts daemons where an ordinary user's PATH does not look.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_START_S = 90.0


class LabError(Exception):
    """The lab does not do what it should; the message carries the tails of its logs."""


def missing(accounting: bool = True) -> str:
    """Return one line that says how to get what a lab needs, empty when all of it is there."""
    wanted = [*_COMMANDS, *(_BOOK_COMMANDS if accounting else ())]
    gone = [name for name in wanted if shutil.which(name, path=_PATH) is None]
    return f"no {', '.join(gone)}: `apt-get install {PACKAGES}` brings Slurm" if gone else ""


class SlurmLab:
    """A real Slurm cluster whose nodes are processes of this machine."""

    layout: Layout

    def __init__(
        self,
        nodes: int = 4,
        cpus: int = 4,
        gpus: int = 2,
        accounting: bool = True,
        port: int | None = None,
        folder: Path | None = None,
        **more: Any,
    ) -> None:
        """Describe a lab; `start` makes it.

        Args:
            nodes: How many, called node1, node2, ...
            cpus: CPUs of each node.
            gpus: GPUs of each node: `gpu:fake:N`, that is CUDA_VISIBLE_DEVICES and nothing behind.
            accounting: With MariaDB and slurmdbd, so that sacct works (some seconds more to start).
            port: First of 500 ports; None: some that are free.
            folder: Where its files go, not there yet; None: a new one in the temporary directory.
            more: Further fields of `Layout`.
        """
        self._folder, self._port = folder, port
        self._shape = {"nodes": nodes, "cpus": cpus, "gpus": gpus, "accounting": accounting, **more}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SlurmLab:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """Where the lab's files are, its logs in `log`."""
        return self.layout.folder

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs so that Slurm's commands mean this lab, and to end with it."""
        return {
            "SLURM_CONF": str(self.layout.conf),
            "PATH": _PATH,
            lab_guard.COOKIE: str(self.folder),
        }

    def start(self) -> SlurmLab:
        """Start the daemons and wait until a job has run on all nodes."""
        lacks = missing(self._shape["accounting"])
        if lacks:
            raise LabError(lacks)
        self.layout = Layout(folder=self._make_folder(), port=_free_base(self._port), **self._shape)
        self._guard = subprocess.Popen(
            [sys.executable, lab_guard.__file__, str(self.folder)],
            stdin=subprocess.PIPE,
            # In a session of its own, it does not hear the Ctrl-C that its owner has to answer.
            start_new_session=True,
        )
        try:
            write_conf(self.layout)
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all daemons and all jobs and remove all files. Harmless when nothing runs."""
        if self._guard is None:
            return
        lab_guard.end_lab(self.folder)
        for daemon in self._daemons.values():
            daemon.wait()
        self._daemons.clear()
        assert self._guard.stdin
        self._guard.stdin.close()
        self._guard.wait()
        self._guard = None

    def run(self, *command: str, timeout: float = 60) -> str:
        """Run a command against the lab and return what it prints."""
        done = subprocess.run(
            command,
            env=self._clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise LabError(
                f"{shlex.join(command)} ended with {done.returncode}: {done.stderr}{done.stdout}"
            )
        return done.stdout

    @property
    def daemons(self) -> list[str]:
        """Names of the daemons: munged, slurmctld, slurmd-node1, ..."""
        return list(self._daemons)

    def pid(self, daemon: str) -> int:
        """Return the process of a daemon, by its name."""
        return self._daemons[daemon].pid

    def is_running(self, daemon: str) -> bool:
        return self._daemons[daemon].poll() is None

    def kill(self, daemon: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a daemon a signal and wait until it is gone. Jobs of a killed slurmd live on."""
        self._daemons[daemon].send_signal(how)
        self._daemons[daemon].wait(timeout=30)

    def start_daemon(self, name: str) -> None:
        """Start a daemon that was killed, and wait until it serves; harmless if it runs."""
        if name in self._daemons and self.is_running(name):
            return
        program, _, node = name.partition("-")
        ready: Callable[[], object] = lambda: self.run("scontrol", "ping")  # noqa: E731
        if program == "slurmd":
            self._spawn(name, "slurmd", "-D", "-N", node)
            return
        if program == "slurmctld":
            self._spawn(name, "slurmctld", "-D")
        elif program == "slurmdbd":
            # It looks for its configuration beside slurm.conf, and for MariaDB's socket here.
            self._spawn(name, "slurmdbd", "-D", MYSQL_UNIX_PORT=str(self.layout.mysql_socket))
            ready = lambda: self.run("sacctmgr", "-n", "list", "cluster")  # noqa: E731
        else:
            raise LabError(f"{name!r} is no daemon that can be started again")
        self.wait_until(ready, f"{name} to answer")

    def heal(self) -> None:
        """Bring back every daemon that is down and every node that Slurm has given up."""
        down = [name for name in self._daemons if not self.is_running(name)]
        for name in down:
            self.start_daemon(name)
        if down or self._ailing():
            self.wait_until(self._all_up, "all nodes to be up")

    def jobs(self) -> list[str]:
        """Return the ids of all jobs that wait or run."""
        return self.run("squeue", "-h", "-r", "-o", "%i").split()

    def wait_for_no_jobs(self, seconds: float = 60) -> None:
        self.wait_until(lambda: not self.jobs(), "all jobs to be gone", seconds)

    def processes_of_jobs(self) -> list[str]:
        """Return the command lines of what runs in jobs, or is left of them."""
        daemons = {daemon.pid for daemon in self._daemons.values()}
        found = []
        for process in lab_guard.lab_processes(self.folder):
            try:
                inside = "SLURM_JOB_ID" in process.environ() or process.name() == "slurmstepd"
                if inside and process.pid not in daemons:
                    found.append(shlex.join(process.cmdline()))
            except (lab_guard.psutil.Error, OSError):
                continue
        return found

    def cancel_all(self, seconds: float = 60) -> None:
        """Cancel all jobs and wait until they are gone."""
        ids = self.jobs()
        if ids:
            self.run("scancel", *ids)
            self.wait_for_no_jobs(seconds)

    def wait_until(self, true: Callable[[], object], what: str, seconds: float = _START_S) -> None:
        """Ask again and again until `true` returns something true and raises no LabError."""
        deadline = time.monotonic() + seconds
        said: object = "not yet"
        while True:
            try:
                if true() not in (False, None):
                    return
            except LabError as error:
                said = error
            for name, daemon in self._daemons.items():
                if daemon.poll() not in (None, -signal.SIGKILL, 0):
                    raise LabError(f"{name} has ended.\n{self.tails()}")
            if time.monotonic() > deadline:
                raise LabError(f"Waited {seconds:g} s for {what}: {said}\n{self.tails()}")
            time.sleep(0.1)

    def tails(self, lines: int = 5) -> str:
        """Return the ends of the daemons' logs."""
        parts = []
        for file in sorted((self.folder / "log").glob("*")):
            text = file.read_text(errors="replace").splitlines()[-lines:]
            parts += [f"--- {file.name}", *text] if text else []
        return "\n".join(parts)

    def _make_folder(self) -> Path:
        if self._folder:
            self._folder.mkdir(parents=True)
            folder = self._folder.resolve()
        else:
            # A socket's path has 107 characters at most.
            root = tempfile.gettempdir()
            folder = Path(tempfile.mkdtemp(prefix="slurm-", dir=root if len(root) < 60 else "/tmp"))
            folder = folder.resolve()
        # munged wants to be reached by everybody; its key stays ours.
        folder.chmod(0o755)
        return folder

    def _start_all(self) -> None:
        layout = self.layout
        install = self._install_database() if layout.accounting else None
        self._spawn(
            "munged", "munged", "--foreground", "--num-threads=4",
            f"--key-file={self.folder}/munge/munge.key", f"--socket={layout.munge_socket}",
            f"--pid-file={self.folder}/run/munged.pid", f"--log-file={layout.log('munged')}",
            f"--seed-file={self.folder}/munge/seed",
        )  # fmt: skip
        self.wait_until(lambda: self.run("munge", "-n", "-S", str(layout.munge_socket)), "munged")
        if install:
            self._start_accounting(install)
        self.start_daemon("slurmctld")
        for node in layout.node_names:
            self.start_daemon(f"slurmd-{node}")
        self.wait_until(self._all_up, "all nodes to be up")
        self._run_first_job()
        if layout.accounting:
            # The first record takes seconds to get there, and tests ask at once.
            self.wait_until(lambda: bool(self.run("sacct", "-nXao", "state").strip()), "sacct")

    def _run_first_job(self) -> None:
        # Not by srun: a slurmctld that is killed before it has written down that an srun is over
        # believes for ever after that it still runs.
        options = ("-N", str(self.layout.nodes), "-t1", "--no-requeue", "-o", "/dev/null")
        job = self.run("sbatch", "--parsable", *options, "--wrap", "srun true").strip()
        ask = ("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")
        self.wait_until(lambda: self.run(*ask).strip() == "COMPLETED", "the first job")

    def _install_database(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["mariadb-install-db", f"--defaults-file={self.folder}/etc/my.cnf", "--skip-test-db"],
            env=self._clean_environment(),
            stdout=self.layout.log("mariadb-install").open("wb"),
            stderr=subprocess.STDOUT,
        )

    def _start_accounting(self, install: subprocess.Popen[bytes]) -> None:
        if install.wait():
            raise LabError(f"mariadb-install-db failed.\n{self.tails()}")
        me = getpass.getuser()
        self._spawn("mariadbd", "mariadbd", f"--defaults-file={self.folder}/etc/my.cnf")
        self.wait_until(lambda: self._sql("select 1"), "MariaDB")
        self._sql("create database slurm")
        self.start_daemon("slurmdbd")
        for words in (
            f"cluster {CLUSTER}",
            "qos short",
            "account research cluster=lab",
            f"user {me} account=research qos=normal,short defaultaccount=research",
        ):
            self.run("sacctmgr", "-i", "add", *words.split())

    def _sql(self, statement: str) -> str:
        # Whoever starts MariaDB is its administrator, recognised by the socket's other end.
        socket_file = str(self.layout.mysql_socket)
        return self.run("mariadb", "--no-defaults", "-S", socket_file, "-e", statement)

    def _spawn(self, name: str, program: str, *arguments: str, **more: str) -> None:
        path = shutil.which(program, path=_PATH)
        assert path
        with self.layout.log(f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                [path, *arguments],
                env=self._clean_environment() | more,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _clean_environment(self) -> dict[str, str]:
        """Return the environment without what an outer Slurm or a person's settings put in."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM", "SBATCH_", "SQUEUE_", "SINFO_", "SACCT_", "MYSQL"))
        }
        return kept | self.environment | {"LC_ALL": "C"}

    def _ailing(self) -> dict[str, str]:
        """Return the nodes that take no jobs, with their state; a star: it does not answer."""
        lines = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %t").splitlines()
        states = dict(line.split() for line in lines)
        good = {"idle", "mix", "alloc", "comp", "plnd"}
        return {node: state for node, state in states.items() if state not in good}

    def _all_up(self) -> bool:
        ailing = self._ailing()
        for node, state in ailing.items():
            if state.startswith(("down", "drain", "drng", "fail")):
                self.run("scontrol", "update", f"nodename={node}", "state=resume")
        if ailing:
            raise LabError(f"{ailing}")
        return True


def _free_base(wanted: int | None) -> int:
    """Return the first of `PORTS` ports of which those that daemons listen at are free."""
    for _ in range(50):
        # Below the ports that the kernel gives to outgoing connections.
        base = wanted or random.randrange(20000, 32000 - PORTS, PORTS // 5)
        if all(_is_free(base + offset) for offset in (0, 1, *range(10, 42))):
            return base
        if wanted:
            raise LabError(f"ports from {wanted} on are in use")
    raise LabError(f"no {PORTS} ports in a row are free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
    return True


def main() -> int:
    """Start a lab, run a command or a shell in it, and take it down again."""
    parser = argparse.ArgumentParser(description="A shell, or one command, in a throw-away Slurm.")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--cpus", type=int, default=4)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--port", type=int, help="first of 500 ports; default: some that are free")
    parser.add_argument("--no-accounting", dest="accounting", action="store_false")
    parser.add_argument("command", nargs="*", help="default: an interactive $SHELL")
    asked = vars(parser.parse_args())
    command = asked.pop("command") or [os.environ.get("SHELL", "/bin/sh")]
    # SIGTERM ends a Python process without its `with` blocks being left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with SlurmLab(**asked) as lab:
        print(f"Slurm runs in {lab.folder} until this command ends.", file=sys.stderr, flush=True)
        return subprocess.run(command, env=os.environ | lab.environment, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"{error}")
