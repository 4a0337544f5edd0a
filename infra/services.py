"""Long-lived services on one machine: started in order, watched, started again, ended together.

    python -m infra.services runs/stack          # reads runs/stack/services.json, holds the lock

A supervisor, for machines where nobody runs systemd or containers for us. Every process of it
carries the folder as its cookie, so that all of them are found and ended however they went astray.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import psutil
from filelock import FileLock, Timeout

from ccai_core.files import write_whole
from infra.processes import COOKIE, command_line, end_processes, job_processes

logger = logging.getLogger(__name__)

SERVICES_FILE = "services.json"
_LOCK = ".lock"
_POLL_S = 0.5
_ANSWER_S = 5.0
_GRACE_S = 40.0
_ALL_END_S = 3 * _GRACE_S
# Somebody who looks whether there is a supervisor holds its lock for a moment.
_LOCKED_S = 2.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
# One that has run this long is not one that cannot start: the next wait is short again.
_STEADY_S = 60.0


class Service(NamedTuple):
    """One process to keep running."""

    name: str
    command: tuple[str, ...]
    env: dict[str, str]
    health: str | None
    """Address that answers once it is ready; the next service starts then. None: at once."""


def write_services(folder: Path, services: Sequence[Service]) -> None:
    """Write down what `python -m infra.services FOLDER` is to run."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps([service._asdict() for service in services], indent=2)
    write_whole(folder / SERVICES_FILE, text + "\n")


def is_supervised(folder: Path) -> bool:
    """Whether a supervisor holds the folder now."""
    try:
        with FileLock(folder / _LOCK, timeout=0):
            return False
    except Timeout:
        return True


def answers(url: str) -> bool:
    """Whether the address gives a good answer."""
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_S) as answer:  # noqa: S310  # our own
            return int(answer.status) < 400
    except (OSError, urllib.error.URLError, ValueError):
        return False


def end_services(folder: Path) -> int:
    """End the supervisor and all services of the folder; returns how many processes there were."""
    cookie = str(folder.resolve())
    found = job_processes(cookie)
    # It ends them in order: a flow run that is ended first can still tell Prefect's server.
    for supervisor in (each for each in found if _is_supervisor(each)):
        with contextlib.suppress(psutil.Error):
            supervisor.terminate()
            supervisor.wait(_ALL_END_S)
    end_processes(lambda: job_processes(cookie), grace=_GRACE_S)
    for pid_file in folder.glob("*.pid"):
        pid_file.unlink(missing_ok=True)
    return len(found)


def _is_supervisor(process: psutil.Process) -> bool:
    return "infra.services" in command_line(process.pid)


class Supervisor:
    """Keeps the services of a folder running until it is told to stop."""

    def __init__(self, folder: Path, services: Sequence[Service]) -> None:
        self._folder, self._services = folder, services
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._waits = dict.fromkeys([service.name for service in services], _FIRST_WAIT_S)
        self._not_before: dict[str, float] = {}
        # Asked until they answer once, not for ever: their logs are for people.
        self._ready: set[subprocess.Popen[bytes]] = set()
        self._stopping = False

    def stop(self, _: int = 0, __: FrameType | None = None) -> None:
        """Ask it to end; a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Start what is not running, again and again, until `stop` was called."""
        (self._folder / "supervisor.pid").write_text(f"{os.getpid()}\n", encoding="utf-8")
        try:
            while not self._stopping:
                self._look()
                time.sleep(_POLL_S)
        finally:
            self._end()

    def _look(self) -> None:
        for service in self._services:
            process = self._running.get(service.name)
            if process is not None and process.poll() is not None:
                self._note_end(service, process)
            if service.name not in self._running and self._may_start(service):
                self._start(service)
            if not self._is_ready(service):
                # What comes after it needs it.
                return

    def _is_ready(self, service: Service) -> bool:
        process = self._running.get(service.name)
        if process is None:
            return False
        if service.health and process not in self._ready:
            if not answers(service.health):
                return False
            self._ready.add(process)
        return True

    def _may_start(self, service: Service) -> bool:
        return time.monotonic() >= self._not_before.get(service.name, 0.0)

    def _start(self, service: Service) -> None:
        logger.info("Starts %s.", service.name)
        environment = os.environ | service.env | {COOKIE: str(self._folder.resolve())}
        with (self._folder / f"{service.name}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - commands of our own file, no shell
                service.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own: what it has started is found when it is gone.
                start_new_session=True,
            )
        self._running[service.name], self._started[service.name] = process, time.monotonic()
        (self._folder / f"{service.name}.pid").write_text(f"{process.pid}\n", encoding="utf-8")

    def _note_end(self, service: Service, process: subprocess.Popen[bytes]) -> None:
        del self._running[service.name]
        self._ready.discard(process)
        # A server whose first process was killed leaves workers, which hold its port.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        if time.monotonic() - self._started[service.name] > _STEADY_S:
            self._waits[service.name] = _FIRST_WAIT_S
        wait = self._waits[service.name]
        logger.warning(
            "%s ended with code %s; again in %.0f s. Its log: %s",
            service.name, process.returncode, wait, self._folder / f"{service.name}.log",
        )  # fmt: skip
        self._not_before[service.name] = time.monotonic() + wait
        self._waits[service.name] = min(2 * wait, _LONGEST_WAIT_S)

    def _end(self) -> None:
        """End the last one first: it needs those before it to end in order."""
        for service in reversed(self._services):
            process = self._running.get(service.name)
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid_file in self._folder.glob("*.pid"):
            pid_file.unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> int:
    """Supervise the folder's services; returns the exit code."""
    folder = Path(arguments[0]).resolve()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with contextlib.suppress(Timeout), FileLock(folder / _LOCK, timeout=_LOCKED_S):
        rows = json.loads((folder / SERVICES_FILE).read_text(encoding="utf-8"))
        services = [Service(**{**row, "command": tuple(row["command"])}) for row in rows]
        supervisor = Supervisor(folder, services)
        signal.signal(signal.SIGTERM, supervisor.stop)
        signal.signal(signal.SIGINT, supervisor.stop)
        supervisor.run()
        return 0
    logger.error("%s is supervised already.", folder)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
