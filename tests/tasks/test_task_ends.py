"""What the Prefect server knows of tasks whose events it took and lost: all that is to be known."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import StateType, TaskRun
from prefect.context import TaskRunContext
from prefect.events.clients import PrefectEventsClient
from prefect.events.schemas.events import Event, Resource
from prefect.runtime import flow_run

from ccai_core.errors import ConfigError
from infra import outbox
from infra.outbox import Outbox
from tasks import shown, task_ends
from tasks.policy import retried_task
from tasks.shown import send_what_is_kept


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "_OUTBOX", Outbox(None, shown.is_refused, server="Prefect"))
    monkeypatch.setattr(outbox, "_LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(task_ends, "_LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(task_ends, "_ON_ITS_WAY_S", 2.0)


class Loss:
    """Events of tasks that the server takes and loses, until it does no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: set[str] = set()
        really = PrefectEventsClient.emit

        async def emit(client: PrefectEventsClient, event: Event) -> None:
            if event.event.removeprefix("prefect.task-run.") in self.names:
                # The server takes it, and remembers its id; but its recorder passes it over.
                labels = {**event.resource.root, "prefect.orchestration": "nobody"}
                event = event.model_copy(update={"resource": Resource(labels)})
            await really(client, event)

        monkeypatch.setattr(PrefectEventsClient, "emit", emit)


@pytest.fixture
def loss(server: None, monkeypatch: pytest.MonkeyPatch) -> Loss:
    return Loss(monkeypatch)


def _id() -> str:
    return str(flow_run.get_id())


def _known(run: str) -> dict[str, TaskRun]:
    ours = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run)]))
    with get_client(sync_client=True) as client:
        return {each.name: each for each in client.read_task_runs(flow_run_filter=ours)}


@pytest.mark.parametrize("lost", [{"Completed", "Failed"}, {"Pending", "Running", "Completed"}])
def test_an_end_that_the_server_has_lost_is_told_again_as_it_was(
    loss: Loss, lost: set[str]
) -> None:
    ours: dict[str, TaskRun] = {}

    @retried_task(name="step", task_run_name="step {number}")
    def step(number: int) -> int:
        context = TaskRunContext.get()
        assert context is not None
        ours[context.task_run.name] = context.task_run
        if number > 1:
            raise ConfigError("no such number")
        return number

    @flow
    def run() -> str:
        loss.names = lost
        step(1)
        step(2, return_state=True)
        # A task's event is taken, or lost, in a thread of Prefect's.
        time.sleep(1)
        loss.names = set()
        send_what_is_kept(30)
        return _id()

    known = _known(run())
    assert {name: each.state_type for name, each in known.items()} == {
        "step 1": StateType.COMPLETED,
        "step 2": StateType.FAILED,
    }
    for name, each in ours.items():
        assert (known[name].start_time, known[name].end_time) == (each.start_time, each.end_time)
        assert known[name].run_count == 1
        assert known[name].id == each.id


def test_what_the_server_has_is_not_told_again(loss: Loss) -> None:
    @retried_task(name="step", task_run_name="step")
    def step() -> None:
        pass

    @flow
    def run() -> str:
        step()
        send_what_is_kept(30)
        return _id()

    step_run = _known(run())["step"]
    with get_client(sync_client=True) as client:
        states = client.read_task_run_states(step_run.id)
    assert sorted(each.type for each in states) == ["COMPLETED", "PENDING", "RUNNING"]


def test_a_server_that_is_away_at_the_end_is_told_when_it_is_back(
    loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, away_until = SyncPrefectClient.read_task_runs, [0.0]

    def read_task_runs(self: SyncPrefectClient, **asked: Any) -> Any:
        if time.monotonic() < away_until[0]:
            raise httpx.ConnectError("the server is away")
        loss.names = set()
        return really(self, **asked)

    monkeypatch.setattr(SyncPrefectClient, "read_task_runs", read_task_runs)

    @retried_task(name="step", task_run_name="step")
    def step() -> None:
        loss.names = {"Completed"}

    @flow
    def run() -> str:
        step()
        away_until[0] = time.monotonic() + 1.5
        send_what_is_kept(60)
        return _id()

    assert _known(run())["step"].state_type == StateType.COMPLETED


def test_a_server_that_never_takes_it_does_not_hold_the_run(
    loss: Loss, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(task_ends, "_ON_ITS_WAY_S", 0.3)
    took = []

    @retried_task(name="step", task_run_name="step")
    def step() -> None:
        loss.names = {"Completed"}

    @flow
    def run() -> str:
        step()
        for patience in (0, 60, 60):
            began = time.monotonic()
            send_what_is_kept(patience)
            took.append(time.monotonic() - began)
        return _id()

    assert _known(run())["step"].state_type == StateType.RUNNING
    assert caplog.text.count("does not take the ends of 1 tasks") == 1
    without, waited, again = took
    assert without < 0.3 < waited < 20
    assert again < waited
