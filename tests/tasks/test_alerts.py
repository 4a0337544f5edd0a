"""Alerts reach a real webhook, once, and their addresses reach nothing else."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ccai_core.errors import ConfigError
from tasks.alerts import Alerts, addresses, main

SECRET = "b7c1planted"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Hook:
    """A webhook that keeps what it is sent."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.answer = 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                hook.got.append(json.loads(self.rfile.read(size)))
                self.send_response(hook.answer)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"json://127.0.0.1:{self.server.server_port}/{SECRET}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    made = Hook()
    monkeypatch.setenv("CCAI_ALERTS", made.address)
    monkeypatch.delenv("CCAI_ALERTS_FILE", raising=False)
    yield made
    made.server.shutdown()
    made.server.server_close()


class Clock:
    now = NOON

    def __call__(self) -> datetime:
        return self.now


def test_the_same_is_said_once_a_day_and_something_else_at_once(hook: Hook, tmp_path: Path) -> None:
    clock = Clock()
    alerts = Alerts(tmp_path, clock)
    assert alerts.say("safety", "Safety fell", "from 0.81") == "sent"
    clock.now += timedelta(hours=1)
    # Another process of the same workspace knows of it as well.
    assert Alerts(tmp_path, clock).say("safety", "Safety fell", "from 0.81") == "repeated"
    assert alerts.say("gpu", "A GPU is idle", "for an hour") == "sent"
    clock.now += timedelta(hours=20)
    assert alerts.say("safety", "Safety fell", "from 0.81") == "sent"
    assert [each["title"] for each in hook.got] == ["Safety fell", "A GPU is idle", "Safety fell"]
    assert [row["outcome"] for row in alerts.said()] == ["sent", "repeated", "sent", "sent"]


def test_a_flood_is_cut_off_and_kept_in_the_file(hook: Hook, tmp_path: Path) -> None:
    clock = Clock()
    alerts = Alerts(tmp_path, clock)
    outcomes = [alerts.say(str(number), "Trouble", "more of it") for number in range(13)]
    assert outcomes == ["sent"] * 10 + ["too many"] * 3
    assert (len(hook.got), len(alerts.said())) == (10, 13)
    clock.now += timedelta(hours=1)
    assert alerts.say("12", "Trouble", "more of it") == "sent"


def test_what_was_not_delivered_is_tried_again(hook: Hook, tmp_path: Path) -> None:
    hook.answer = 500
    alerts = Alerts(tmp_path)
    assert alerts.say("safety", "Safety fell", "") == "failed"
    hook.answer = 200
    assert alerts.say("safety", "Safety fell", "") == "sent"


def test_addresses_come_from_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "who").write_text("# ours\njson://one\n\njson://two\n")
    monkeypatch.setenv("CCAI_ALERTS", "json://zero")
    monkeypatch.setenv("CCAI_ALERTS_FILE", str(tmp_path / "who"))
    assert addresses() == ["json://zero", "json://one", "json://two"]
    monkeypatch.setenv("CCAI_ALERTS_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="cannot be read"):
        addresses()


@pytest.mark.parametrize("address", [f"jsson://{SECRET}", f"json://127.0.0.1:1/{SECRET}"])
def test_an_address_is_never_written_down(
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CCAI_ALERTS", address)
    with caplog.at_level(logging.INFO):
        outcome = Alerts(tmp_path).say("safety", "Safety fell", "")
    assert outcome == "failed"
    assert "address 1" in caplog.text or "json://" in address
    said = "".join([*capfd.readouterr(), caplog.text, (tmp_path / "alerts.jsonl").read_text()])
    assert "Safety fell" in said
    assert SECRET not in said


def test_the_test_command_says_whether_everybody_is_reached(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test"]) == 0
    assert hook.got[0]["title"] == "CCAI: a test"
    hook.answer = 500
    assert main(["test"]) == 1
    monkeypatch.delenv("CCAI_ALERTS")
    assert main(["test"]) == 2
    assert "set $CCAI_ALERTS" in capsys.readouterr().err
