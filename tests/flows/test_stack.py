"""Everything up, a flow run through the API, one that is cancelled, and everything down again."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from ccai_core.errors import ConfigError
from flows.demo import run_demo
from flows.stack_config import DemoConfig, PlaceConfig, StackConfig
from flows.stack_steps import places_of, plan_stack, start_stack, stop_stack
from infra.processes import job_processes
from tests.flows.tiny_flow import TINY, alive, wait_for, write_settings

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackConfig]:
    folder = tmp_path_factory.mktemp("stack")
    config = StackConfig(folder=folder, prefect_port=free_port(), mlflow_port=free_port())
    try:
        start_stack(config)
        yield config
    finally:
        stop_stack(config)


@pytest.fixture
def client(up: StackConfig) -> Iterator[SyncPrefectClient]:
    at = {PREFECT_API_URL: f"{places_of(up)['prefect']}/api"}
    with temporary_settings(at), get_client(sync_client=True) as made:
        yield made


def start(client: SyncPrefectClient, values: dict[str, Any]) -> FlowRun:
    there = client.read_deployment_by_name("poc/quick")
    return client.create_flow_run_from_deployment(there.id, parameters={"config": values})


def state_of(client: SyncPrefectClient, run: FlowRun) -> StateType | None:
    state = client.read_flow_run(run.id).state
    return state.type if state else None


def test_up_again_finds_it_running(up: StackConfig) -> None:
    before = (up.folder / "supervisor.pid").read_text()
    assert start_stack(up).findings == ("Everything runs.",)
    assert (up.folder / "supervisor.pid").read_text() == before
    assert "running already" in plan_stack(up)


def test_the_nights_to_come_are_scheduled(client: SyncPrefectClient) -> None:
    nights = client.read_deployment_by_name("nightly/default")
    of_nights = DeploymentFilter(id=DeploymentFilterId(any_=[nights.id]))
    wait_for(lambda: client.read_flow_runs(deployment_filter=of_nights), 90, every=1)


def test_the_demo_runs_to_its_end_and_a_wrong_value_starts_nothing(
    up: StackConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = write_settings(tmp_path)
    flat = {
        f"{group}.{name}" if group else name: value
        for group, inner in [("", values), *_groups(values)]
        for name, value in inner.items()
        if not isinstance(value, dict)
    }
    place = {"folder": up.folder, "model": values["model"]}
    words = {name: str(value) for name, value in flat.items() if name != "model"}
    with pytest.raises(ConfigError, match="max_pairs"):
        run_demo(DemoConfig(**place, values={**words, "max_pairs": "0"}))
    summary = run_demo(DemoConfig(**place, values=words))
    assert "completed" in summary.findings[0]
    assert list((tmp_path / "ws").rglob("report.html"))
    assert "Running" in capsys.readouterr().out


def _groups(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield f"{above}{name}", value
            yield from _groups(value, f"{above}{name}.")


def test_cancelling_ends_the_jobs_of_a_flow_run(client: SyncPrefectClient, tmp_path: Path) -> None:
    generation = {**TINY["preferences"]["generation"], "batch_size": 1}
    values = write_settings(
        tmp_path, max_pairs=200, preferences={**TINY["preferences"], "generation": generation}
    )
    run = start(client, values)
    wait_for(lambda: alive(tmp_path / "ws", "pairs"), 120, every=0.3)
    client.set_flow_run_state(run.id, Cancelling())
    wait_for(lambda: state_of(client, run) is StateType.CANCELLED, 90, every=0.5)
    wait_for(lambda: not alive(tmp_path / "ws"), 30, every=0.5)


def test_serve_that_is_told_to_stop_cancels_its_flow_runs_and_comes_back(
    up: StackConfig, client: SyncPrefectClient, tmp_path: Path
) -> None:
    run = start(client, write_settings(tmp_path, max_pairs=200))
    wait_for(lambda: alive(tmp_path / "ws", "pairs"), 120, every=0.3)
    serve = int((up.folder / "serve.pid").read_text())
    os.kill(serve, signal.SIGTERM)
    wait_for(lambda: state_of(client, run) is StateType.CANCELLED, 90, every=0.5)
    wait_for(lambda: not alive(tmp_path / "ws"), 30, every=0.5)
    wait_for(lambda: int((up.folder / "serve.pid").read_text()) != serve, 60, every=0.5)


def test_down_leaves_nothing_even_of_a_flow_run(tmp_path: Path) -> None:
    # A stack of its own: the others' stays up.
    config = StackConfig(folder=tmp_path / "s", prefect_port=free_port(), mlflow_port=free_port())
    start_stack(config)
    try:
        at = {PREFECT_API_URL: f"{places_of(config)['prefect']}/api"}
        with temporary_settings(at), get_client(sync_client=True) as its:
            start(its, write_settings(tmp_path, max_pairs=200))
        wait_for(lambda: alive(tmp_path / "ws"), 120, every=0.3)
    finally:
        stop_stack(PlaceConfig(folder=config.folder))
    assert not job_processes(str(config.folder.resolve()))
    wait_for(lambda: not alive(tmp_path / "ws"), 30, every=0.5)
    assert stop_stack(config).findings == ("Nothing was running.",)
