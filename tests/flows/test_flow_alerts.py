"""A flow run that fails tells people, once, where its page is; one that is watched need not."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect import flow

from ccai_core.errors import DataError
from flows.config import RunConfig
from flows.offers import all_offers
from tasks.alerts import Alerts
from tasks.flow_alerts import TELLS, tell_of_end


@flow(name="fails", persist_result=False, **TELLS)
def fails(config: RunConfig, why: str) -> None:
    raise DataError(why)


@pytest.fixture
def config(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.delenv("CCAI_ALERTS_FILE", raising=False)
    # Nobody answers there; that it was tried is kept.
    monkeypatch.setenv("CCAI_ALERTS", "json://127.0.0.1:1/")
    return RunConfig(workspace=tmp_path)


def test_a_failure_is_news_with_its_reason_and_its_page(config: RunConfig) -> None:
    for why in ("line 3 is damaged", "the disk is full"):
        with pytest.raises(DataError):
            fails(config, why)
    first, second = Alerts(config.workspace).said()
    assert first["title"].startswith("Flow fails: ")
    assert first["title"].endswith(" failed")
    assert "line 3 is damaged" in first["body"]
    assert "/runs/flow-run/" in first["body"] or "Flow run " in first["body"]
    assert first["key"] != second["key"]


def test_whoever_watches_a_terminal_sees_it_there(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CCAI_ALERTS")
    with pytest.raises(DataError):
        fails(config, "line 3 is damaged")
    assert not Alerts(config.workspace).said()


def test_every_flow_tells_of_its_crashes_and_failures() -> None:
    for offer in all_offers():
        assert tell_of_end in offer.flow.on_crashed_hooks
        # A night tells of its failures itself, with what is to be done.
        assert (tell_of_end in offer.flow.on_failure_hooks) is not offer.nightly
