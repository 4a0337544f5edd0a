"""Services on one machine: started in order, started again, and all of them ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.processes import COOKIE, job_processes
from infra.services import (
    Service,
    answers,
    end_services,
    is_supervised,
    write_services,
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
    return found


class Stack:
    """A web server, and a service that needs it and has a child that has gone astray."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        port = self.port = free_port()
        self.url = f"http://127.0.0.1:{port}/"
        # As MLflow does it: a first process, and a worker of it that holds the port.
        serve = f"[{sys.executable!r}, '-m', 'http.server', '{port}', '--bind', '127.0.0.1']"
        web = (sys.executable, "-c", f"import subprocess; subprocess.run({serve})")
        astray = "import os, subprocess, time; " + (
            "subprocess.Popen(['sleep', '300'], start_new_session=True); "
            f"open({str(folder / 'began')!r}, 'a').write('x'); time.sleep(300)"
        )
        write_services(
            folder,
            [
                Service("web", web, {}, self.url),
                Service("worker", (sys.executable, "-c", astray), {}, None),
            ],
        )

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "infra.services", str(self.folder)],
            env=os.environ | {COOKIE: str(self.folder)},
            cwd=Path(__file__).parents[2],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def listener(self) -> int:
        """Return the parent of the process that has the web server's port."""
        there = (c for c in psutil.net_connections("tcp4") if c.status == psutil.CONN_LISTEN)
        found = next((c.pid for c in there if c.laddr[1] == self.port), None)
        return psutil.Process(found).ppid() if found else 0

    def pid(self, name: str) -> int:
        file = self.folder / f"{name}.pid"
        return int(file.read_text()) if file.exists() else 0


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    yield Stack(tmp_path)
    end_services(tmp_path)


def test_what_dies_is_started_again_and_the_end_leaves_nothing(stack: Stack) -> None:
    supervisor = stack.start()
    wait_for(lambda: stack.pid("worker"))
    # It was started once the web server answered.
    assert answers(stack.url)
    assert is_supervised(stack.folder)
    first = stack.pid("web")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: stack.pid("web") not in (0, first) and stack.listener() == stack.pid("web"))
    assert answers(stack.url)
    wait_for(lambda: (stack.folder / "began").exists())

    second = stack.start()
    assert second.wait(20) == 2

    assert end_services(stack.folder) >= 4
    assert supervisor.wait(5) == 0
    assert not job_processes(str(stack.folder))
    assert not is_supervised(stack.folder)
    assert not list(stack.folder.glob("*.pid"))
    assert not answers(stack.url)


def test_services_of_a_killed_supervisor_are_ended_too(stack: Stack) -> None:
    supervisor = stack.start()
    wait_for(lambda: stack.pid("worker"))
    supervisor.kill()
    supervisor.wait()
    assert not is_supervised(stack.folder)
    assert len(job_processes(str(stack.folder))) >= 2
    assert end_services(stack.folder) >= 2
    assert not job_processes(str(stack.folder))
    assert end_services(stack.folder) == 0
