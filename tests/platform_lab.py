"""PostgreSQL, Prefect, MLflow and `flows.serve` on this machine, as in production, each by itself.

with Platform(folder, ServeConfig(local=4)) as platform:
    platform.stop("mlflow")
    platform.start("mlflow")

The servers are those of `flows.stack`, but nobody starts them again when they are stopped. MLflow
needs psycopg2 for PostgreSQL: `pip install psycopg2-binary`, as docker/Dockerfile does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import yaml

from flows.serve_config import ServeConfig
from flows.stack_config import StackConfig
from flows.stack_steps import services_of
from infra.processes import COOKIE, end_processes, job_processes
from infra.services import Service, answers
from tests.postgres import Postgres, free_port, programs

_ROOT = Path(__file__).resolve().parent.parent
_READY_S = 240.0
_END_S = 60.0


def missing() -> str | None:
    """Return what is not there to start it with."""
    if programs() is None:
        return "PostgreSQL (apt-get install postgresql)"
    return None if find_spec("psycopg2") else "psycopg2 (pip install psycopg2-binary)"


@contextmanager
def benchmarked(
    name: str, serve: ServeConfig, folder: Path | None = None
) -> Iterator[tuple[Platform, Path]]:
    """Start a benchmark's platform and give it with its folder, a temporary one unless named.

    Ends the program with 2 where something is missing.
    """
    # So that nothing is left when it is ended from outside.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if lacks := missing():
        print(f"Missing: {lacks}", file=sys.stderr)
        sys.exit(2)
    with tempfile.TemporaryDirectory(prefix=f"ccai-{name}-") as temporary:
        place = folder or Path(temporary)
        with Platform(place / "servers", serve) as platform:
            yield platform, place


class Platform:
    """The services, started in the order in which they need each other."""

    def __init__(
        self, folder: Path, serve: ServeConfig, env: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.config = StackConfig(
            folder=self.folder, prefect_port=free_port(), mlflow_port=free_port(), serve=serve
        )
        self.prefect = f"http://127.0.0.1:{self.config.prefect_port}"
        self.mlflow = f"http://127.0.0.1:{self.config.mlflow_port}"
        self.postgres = Postgres()
        self._env = dict(env or {})
        self._services: dict[str, Service] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            opened.enter_context(self.postgres)
            opened.callback(self._end)
            stores = {
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.postgres.url(
                    "postgresql+asyncpg", "prefect"
                ),
                "MLFLOW_BACKEND_STORE_URI": self.postgres.url("postgresql+psycopg2", "mlflow"),
            }
            with _environment(stores):
                services = services_of(self.config)
            self._services = {service.name: service for service in services}
            self._env |= stores
            served = yaml.safe_dump(self.config.serve.model_dump(mode="json"))
            (self.folder / "serve.yaml").write_text(served, encoding="utf-8")
            for name in self._services:
                self.start(name)
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def client_env(self) -> dict[str, str]:
        """What a command line needs to report to these servers."""
        return {"PREFECT_API_URL": f"{self.prefect}/api", "MLFLOW_TRACKING_URI": self.mlflow}

    def start(self, name: str) -> None:
        """Start one of them and wait until it answers."""
        if name == "postgres":
            self.postgres.start()
            return
        service = self._services[name]
        environment = os.environ | self._env | service.env | {COOKIE: str(self.folder)}
        # Found there whether or not it is installed.
        environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                service.command, cwd=self.folder, env=environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._running[name] = process
        until = time.monotonic() + _READY_S
        while service.health and not answers(service.health):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{name} does not start; see {self.log(name)}")
            time.sleep(0.3)

    def stop(self, name: str) -> None:
        """Stop one of them as its supervisor would."""
        if name == "postgres":
            self.postgres.stop()
            return
        process = self._running.pop(name)
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            # With its children: a server's workers hold the port.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def pid(self, name: str) -> int:
        """Return the process id of one that runs."""
        return self._running[name].pid

    def log(self, name: str) -> Path:
        """Return the file that one of them writes to."""
        return self.folder / f"{name}.log"

    def _end(self) -> None:
        for name in reversed(list(self._running)):
            self.stop(name)
        end_processes(lambda: job_processes(str(self.folder)), grace=10)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
