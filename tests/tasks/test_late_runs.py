"""A flow run that was due and did not start is told, once, with its name and its page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.states import Scheduled

from tasks import late_runs
from tasks.alerts import Alerts
from tasks.late_runs import main, tell_of_late_runs


@flow(name="due")
def due() -> None:
    raise AssertionError("nobody starts it")


@pytest.fixture
def client(server: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as made:
        yield made


def test_a_late_flow_run_is_news_once_and_others_are_none(
    client: SyncPrefectClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_runs, "_FOLDER", tmp_path)
    monkeypatch.delenv("CCAI_ALERTS", raising=False)
    monkeypatch.delenv("CCAI_ALERTS_FILE", raising=False)
    assert main([]) == 0
    at = datetime.now(UTC) - timedelta(minutes=20)
    late = Scheduled(scheduled_time=at, message="by the server")
    late.name = "Late"
    ours = client.create_flow_run(due, state=late, tags=["ccai"], name="tardy-wren")
    # Not late yet, and not one of ours.
    soon = Scheduled(scheduled_time=datetime.now(UTC) - timedelta(minutes=2))
    soon.name = "Late"
    client.create_flow_run(due, state=soon, tags=["ccai"])
    client.create_flow_run(due, state=late, tags=["other"])

    assert [run.id for run in late_runs.late_runs(15)] == [ours.id]
    assert main(["--minutes", "15"]) == 1
    assert tell_of_late_runs(15, tmp_path) == 1
    first, second = Alerts(tmp_path).said()
    assert first["title"] == "Flow run tardy-wren is late"
    assert f"due {at:%Y-%m-%d %H:%M} UTC" in first["body"]
    assert str(ours.id) in first["body"]
    assert (first["outcome"], second["outcome"]) == ("nobody", "repeated")
