"""What the commands of `flows.stack` do: everything up, everything down, how it is, a run of it.

summary = start_stack(StackConfig())
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ccai_core.errors import ConfigError, JobError
from ccai_core.files import write_whole
from flows.offers import all_offers
from flows.results import Summary
from flows.stack_config import PlaceConfig, StackConfig
from flows.stack_runs import cancel_runs
from infra.processes import COOKIE
from infra.services import Service, answers, end_services, is_supervised, write_services

_SERVE_FILE, _PLACES_FILE, _LOG = "serve.yaml", "stack.json", "supervisor.log"
# As the servers' own manuals call them; passwords in them are on no command line then.
_PREFECT_STORE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
_MLFLOW_STORE = "MLFLOW_BACKEND_STORE_URI"
_LOOK_EVERY_S = 0.5
_ANSWER_S = 5.0
_TAIL = 15


def plan_stack(config: StackConfig) -> str:
    """Say what would be started, and where."""
    folder = config.folder.resolve()
    lines = [
        f"Services in {folder}, on this machine only:",
        *(f"  {service.name:<8} {' '.join(service.command)}" for service in services_of(config)),
    ]
    if is_up(config):
        lines.append("They are running already.")
    return "\n".join(lines)


def plan_stop(config: PlaceConfig) -> str:
    """Say what would be ended."""
    state = "running" if is_up(config) else "not running"
    return f"Services in {config.folder.resolve()}: {state}"


def is_up(config: PlaceConfig) -> bool:
    """Whether the services are supervised now."""
    return config.folder.is_dir() and is_supervised(config.folder)


def services_of(config: StackConfig) -> list[Service]:
    """Return the services in the order in which they need each other.

    Their data are in the folder, unless the environment names a PostgreSQL, an object store.
    """
    folder = config.folder.resolve()
    prefect, mlflow = _url(config.prefect_port), _url(config.mlflow_port)
    quiet = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Jobs of MLflow's own, for language model judges: processes that nobody here asks.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PREFECT_HOME": str(folder / "prefect"),
    }
    reaching = {"PREFECT_API_URL": f"{prefect}/api", "MLFLOW_TRACKING_URI": mlflow}
    python = sys.executable
    store = [
        *_unless_set(_MLFLOW_STORE, "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *_unless_set(
            "MLFLOW_ARTIFACTS_DESTINATION", "--artifacts-destination", str(folder / "mlartifacts")
        ),
    ]
    # In memory, as it is by default, a restart of the server would let no flow run in ever after.
    leases = "prefect.server.concurrency.lease_storage.filesystem"
    return [
        Service(
            "prefect",
            (
                *(python, "-m", "prefect", "server", "start"),
                *("--host", "127.0.0.1", "--port", str(config.prefect_port)),
            ),
            # A server must not take itself for a client of another one.
            {
                **quiet,
                "PREFECT_API_URL": "",
                "PREFECT_UI_API_URL": f"{prefect}/api",
                "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": leases,
            },
            f"{prefect}/api/health",
        ),
        Service(
            "mlflow",
            (
                *(python, "-m", "mlflow", "server", "--workers", "1"),
                *("--host", "127.0.0.1", "--port", str(config.mlflow_port)),
                *store,
            ),
            quiet,
            f"{mlflow}/health",
        ),
        Service(
            "serve",
            (python, "-m", "flows.serve", "--config", str(folder / _SERVE_FILE)),
            # Flow runs and their jobs have no business with the servers' databases.
            {**quiet, **reaching, _PREFECT_STORE: "", _MLFLOW_STORE: ""},
            None,
        ),
    ]


def start_stack(config: StackConfig) -> Summary:
    """Start the services, or find them running, and wait until they answer.

    Raises:
        ConfigError: a port is taken by somebody else.
        JobError: a service does not come up; says what it last wrote.
    """
    folder = config.folder.resolve()
    if is_up(config):
        return _running(folder)
    # What a supervisor that was killed has left behind holds the ports.
    end_services(folder)
    services = services_of(config)
    for port in (config.prefect_port, config.mlflow_port):
        _refuse_taken(port)
    write_services(folder, services)
    serve = config.serve.model_dump(mode="json")
    write_whole(folder / _SERVE_FILE, yaml.safe_dump(serve))
    began = datetime.now(UTC)
    places = {"prefect": _url(config.prefect_port), "mlflow": _url(config.mlflow_port)}
    write_whole(folder / _PLACES_FILE, json.dumps(places) + "\n")
    with (folder / _LOG).open("ab") as log:
        supervisor = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
            [sys.executable, "-m", "infra.services", str(folder)],
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _wait_for(folder, services, supervisor, _Ready(places["prefect"], began, config.wait))
    return _running(folder)


def stop_stack(config: PlaceConfig) -> Summary:
    """End the services and whatever they have started; none running is right as well."""
    cancelled = cancel_runs(places_of(config)["prefect"]) if is_up(config) else 0
    ended = end_services(config.folder) if config.folder.is_dir() else 0
    said = f"{ended} processes ended." if ended else "Nothing was running."
    return Summary(
        made={},
        findings=(said,),
        notices=(f"{cancelled} flow runs were cancelled.",) if cancelled else (),
    )


def places_of(config: PlaceConfig) -> dict[str, str]:
    """Return where the running services are.

    Raises:
        ConfigError: they are not running.
    """
    if not is_up(config):
        raise ConfigError(f"No services run in {config.folder.resolve()}. Start them: `make up`.")
    places: dict[str, str] = json.loads((config.folder / _PLACES_FILE).read_text(encoding="utf-8"))
    return places


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _unless_set(variable: str, option: str, value: str) -> tuple[str, ...]:
    """Return the option, but for a user who has named another place in the environment."""
    return () if os.environ.get(variable) else (option, value)


def _environment(folder: Path) -> dict[str, Any]:
    root = str(Path(__file__).resolve().parent.parent)
    # So that `-m flows.serve` is found wherever this is started from, installed or not.
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return os.environ | {COOKIE: str(folder), "PYTHONPATH": path}


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ConfigError(
                f"Port {port} of this machine is taken by another program. Name another: "
                "--prefect-port, --mlflow-port."
            ) from None


class _Ready(NamedTuple):
    """What is waited for."""

    prefect: str
    since: datetime
    seconds: float

    def has(self, service: Service) -> bool:
        """Whether the service does its work."""
        return answers(service.health) if service.health else self._is_serving()

    def _is_serving(self) -> bool:
        """Whether the last deployment was registered by this start, and its runs are looked for."""
        last = f"{self.prefect}/api/deployments/name/{all_offers()[-1].full_name}"
        try:
            with urllib.request.urlopen(last, timeout=_ANSWER_S) as answer:  # noqa: S310  # our own
                found = json.load(answer)
        except (OSError, ValueError):
            return False
        updated = datetime.fromisoformat(found["updated"])
        return bool(found["status"] == "READY" and updated >= self.since)


def _wait_for(
    folder: Path, services: list[Service], supervisor: subprocess.Popen[bytes], ready: _Ready
) -> None:
    until = time.monotonic() + ready.seconds
    for service in services:
        while not ready.has(service):
            if supervisor.poll() is not None or time.monotonic() > until:
                end_services(folder)
                raise JobError(
                    f"{service.name} does not come up. {folder / f'{service.name}.log'} ends:\n"
                    f"{_tail(folder / f'{service.name}.log')}"
                )
            time.sleep(_LOOK_EVERY_S)


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"  {line}" for line in lines[-_TAIL:])


def _running(folder: Path) -> Summary:
    places = json.loads((folder / _PLACES_FILE).read_text(encoding="utf-8"))
    return Summary(
        made={
            "Prefect": places["prefect"],
            "MLflow": places["mlflow"],
            "logs": str(folder / "*.log"),
        },
        findings=("Everything runs.",),
        next_commands=(
            f"export PREFECT_API_URL={places['prefect']}/api",
            f"export MLFLOW_TRACKING_URI={places['mlflow']}",
            "make demo",
            "make down",
        ),
    )
