"""What the Prefect UI shows of a run whose server was away: all of it, and nobody waited."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import flow, get_run_logger, task
from prefect.client.orchestration import PrefectClient, SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.logging.handlers import set_api_log_sink

from infra import outbox
from infra.outbox import Outbox
from tasks import log_lines, shown
from tasks.log_lines import keep_log_lines
from tasks.shown import Bar, send_what_is_kept, show_link, show_table


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "_OUTBOX", Outbox(None, shown.is_refused, server="Prefect"))
    monkeypatch.setattr(outbox, "_REST_S", 0.0)


class Line:
    """The way to the server's artifacts, which can be cut."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cut = False
        for name in ("create_artifact", "update_artifact"):
            monkeypatch.setattr(
                SyncPrefectClient, name, self._guarded(getattr(SyncPrefectClient, name))
            )

    def _guarded(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.cut:
                raise httpx.ConnectError("the server is away")
            return real(*args, **kwargs)

        return call


def test_what_was_shown_while_the_server_was_away_is_there_afterwards(
    server: None, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(monkeypatch)
    waited: list[float] = []

    @task
    def step() -> None:
        bar = Bar("pairs")
        bar.show(10.0, "1/10")
        line.cut = True
        began = time.monotonic()
        for done in range(2, 11):
            bar.show(10.0 * done, f"{done}/10")
        show_table([{"what": "kept", "pairs": 8}], key="funnel", description="What was kept")
        waited.append(time.monotonic() - began)

    @flow
    def run() -> str:
        step()
        show_link("http://127.0.0.1:1/#/runs/7", key="mlflow", text="In MLflow")
        line.cut = False
        send_what_is_kept(5)
        from prefect.runtime import flow_run

        return str(flow_run.get_id())

    ours = FlowRunFilter(id=FlowRunFilterId(any_=[run()]))
    with get_client(sync_client=True) as client:
        found = {each.key: each for each in client.read_artifacts(flow_run_filter=ours)}
    assert set(found) == {"pairs", "funnel", "mlflow"}
    assert (found["pairs"].data, found["pairs"].description) == (100.0, "10/10")
    assert found["funnel"].task_run_id == found["pairs"].task_run_id
    assert found["funnel"].task_run_id is not None
    assert found["mlflow"].task_run_id is None
    assert found["mlflow"].data == "[In MLflow](http://127.0.0.1:1/#/runs/7)"
    assert waited[0] < 5


def test_lines_of_the_log_are_there_soon_after_the_server_is(
    server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lines, "_AGAIN_S", 0.1)
    really, away = PrefectClient.create_logs, [True]

    async def create_logs(self: PrefectClient, logs: Any) -> None:
        if away[0]:
            raise httpx.ConnectError("the server is away")
        await really(self, logs)

    monkeypatch.setattr(PrefectClient, "create_logs", create_logs)

    @flow
    def run() -> str:
        keep_log_lines()
        for number in range(3):
            get_run_logger().info("line %d", number)
            time.sleep(2.5)  # more than a batch is gathered
        away[0] = False
        from prefect.runtime import flow_run

        return str(flow_run.get_id())

    try:
        asked = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(run())]))
        with get_client(sync_client=True) as client:
            until, found = time.monotonic() + 20, set[str]()
            while time.monotonic() < until and len(found) < 3:
                time.sleep(0.2)
                found = {each.message for each in client.read_logs(asked)} & {
                    f"line {number}" for number in range(3)
                }
        assert len(found) == 3
    finally:
        set_api_log_sink(None)


def test_outside_a_flow_run_there_is_nothing_to_show_it_on(fresh: None) -> None:
    show_table([{"a": 1}], key="funnel", description="")
    Bar("pairs").show(1.0, "")
    send_what_is_kept(0)


def test_at_the_end_the_server_is_waited_for_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "_LOOK_EVERY_S", 0.05)
    back, sent = time.monotonic() + 0.5, []

    def call() -> None:
        if time.monotonic() < back:
            raise ConnectionError("away")
        sent.append(1)

    box = Outbox(tmp_path / "unsent", lambda error: False)
    box.send("end", {}, call)
    box.send("metrics", {}, call)
    box.close(30)
    assert sent == [1, 1]
    assert "does not answer. Waits for it" in caplog.text
    assert not (tmp_path / "unsent").exists()

    back = time.monotonic() + 60
    box.send("end", {}, call)
    began = time.monotonic()
    box.close(0.5)
    assert 0.4 < time.monotonic() - began < 20
    assert (tmp_path / "unsent").exists()
