"""Calls to a server that may go away: sent in order, kept while it is away, never in the way.

A run that has cost hours must not fail because a dashboard is restarted. What could not be sent
in the end is written to a file and said.

    outbox = Outbox(workspace / "mlflow-unsent.jsonl", is_refused)
    outbox.send("metrics", {"loss": 0.3}, lambda: client.log_batch(...))
    outbox.close()
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.mlflow_store import shown

logger = logging.getLogger(__name__)

_REST_S = 15.0
"""How long a server that failed is left alone: its time-outs must not slow the work down."""

_GIVE_UP_AFTER = 2
_LOOK_EVERY_S = 3.0


@dataclass(frozen=True)
class _Call:
    what: str
    details: Mapping[str, Any]
    send: Callable[[], None]
    time: float = field(default_factory=time.time)


class Outbox:
    """A queue of calls that is emptied whenever something is added and the server answers."""

    def __init__(
        self,
        unsent: Path | None,
        is_refused: Callable[[Exception], bool],
        server: str = "tracking",
    ) -> None:
        """Keep calls in memory; write those that can never be sent to `unsent`, if that is named.

        `is_refused` tells an answer that will not change (a bad value, a deleted run) from a
        server that cannot be reached now. `server` is what people call it.
        """
        self._unsent, self._server = unsent, server
        self._is_refused = is_refused
        self._waiting: deque[_Call] = deque()
        self._rest_until = 0.0
        self._away = False
        self._lock = threading.Lock()

    def send(self, what: str, details: Mapping[str, Any], call: Callable[[], None]) -> None:
        """Make the call after all earlier ones; keep it when the server is away.

        Args:
            what: A word for the log and the file of unsent calls.
            details: The content in plain values, for that file.
            call: Does it; is called again from the start after a failure.
        """
        self._waiting.append(_Call(what, details, call))
        if time.monotonic() >= self._rest_until:
            self.flush()

    def flush(self) -> None:
        """Try to send everything now, whether or not the server failed a moment ago."""
        _undisturbed(self._flush)

    def close(self, patience: float = 0.0) -> None:
        """Try each kept call a last time, and write down what remains.

        Goes past a call that fails, since one that the server chokes on must not take the others
        with it, but gives up when a second one fails: then the server is away. It has `patience`
        seconds to come back; whoever cannot wait presses Ctrl-C.
        """
        try:
            self._wait(patience)
        finally:
            _undisturbed(self._close)

    def _wait(self, patience: float) -> None:
        until, is_said = time.monotonic() + patience, False
        while self._waiting and time.monotonic() < until:
            kept = len(self._waiting)
            self.flush()
            if len(self._waiting) < kept:
                # It answers; what is left is what it chokes on.
                return
            if not is_said:
                logger.warning(
                    "All is done but for %d calls to the %s server, which does not answer. Waits "
                    "for it, %.0f minutes at most; what it has not got then is written down.",
                    kept, self._server, patience / 60,
                )  # fmt: skip
                is_said = True
            time.sleep(min(_LOOK_EVERY_S, max(0.0, until - time.monotonic())))

    def _flush(self) -> None:
        with self._lock:
            kept = len(self._waiting)
            while self._waiting:
                error = _make(self._waiting[0])
                if error is not None and not self._is_refused(error):
                    self._rest(error)
                    return
                call = self._waiting.popleft()
                if error is not None:
                    logger.warning(
                        "%s refuses %s (%s).",
                        self._server.capitalize(), call.what, shown(str(error)),
                    )  # fmt: skip
                    self._write_down([(call, error)])
            if self._away:
                self._away = False
                logger.info("The %s server answers again; sent %d kept calls.", self._server, kept)

    def _close(self) -> None:
        with self._lock:
            kept, self._waiting = self._waiting, deque()
            unsent: list[tuple[_Call, Exception]] = []
            away: list[Exception] = []
            for call in kept:
                error = _make(call) if len(away) < _GIVE_UP_AFTER else away[-1]
                if error is not None:
                    unsent.append((call, error))
                    away.extend([] if self._is_refused(error) else [error])
            if unsent:
                self._write_down(unsent)

    def _rest(self, error: Exception) -> None:
        self._rest_until = time.monotonic() + _REST_S
        if not self._away:
            logger.warning(
                "The %s server does not answer (%.160s …). The run goes on; what it reports "
                "is kept and sent later.",
                self._server, shown(str(error)),
            )  # fmt: skip
        self._away = True

    def _write_down(self, unsent: list[tuple[_Call, Exception]]) -> None:
        if self._unsent is None:
            logger.warning("The %s server has not got %d things.", self._server, len(unsent))
            return
        with self._unsent.open("a", encoding="utf-8") as file:
            for call, error in unsent:
                line = {
                    "time": call.time,
                    "what": call.what,
                    **call.details,
                    "reason": shown(str(error)),
                }
                file.write(json.dumps(line, default=str) + "\n")
        logger.warning(
            "%d %s calls could not be sent; they are in %s.",
            len(unsent), self._server, self._unsent,
        )  # fmt: skip


def _undisturbed(work: Callable[[], None]) -> None:
    """Do the work in a thread of its own, and wait for it.

    Ctrl-C reaches the main thread only. In the middle of a write it would leave SQLite locked for
    as long as its traceback is held, and the run for ever RUNNING; so the write goes on, and only
    the waiting is interrupted.
    """
    result: Future[None] = Future()

    def do() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            result.set_exception(error)
        else:
            result.set_result(None)

    try:
        threading.Thread(target=do, name="outbox", daemon=True).start()
    except RuntimeError:  # the interpreter is about to end, and starts no more threads
        do()
    result.result()


def _make(call: _Call) -> Exception | None:
    """Make the call and return what went wrong."""
    try:
        call.send()
    except Exception as error:  # noqa: BLE001  # every store raises its own; none may end a run
        return error
    return None
