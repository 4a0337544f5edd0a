"""What people see of a flow run in the Prefect UI: tables, texts, links, progress.

Sent in order. While the server is away they are kept, and sent when it answers again: what a run
shows is then the same as if nothing had happened. A server that stays away loses pictures of the
work, never the work.

    show_table([{"what": "pairs", "candidates": 12}], key="funnel", description="What was kept")
    bar = Bar("preference-pairs")
    bar.show(40.0, "40/100 pairs")
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    Artifact,
    LinkArtifact,
    MarkdownArtifact,
    TableArtifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectHTTPStatusError
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from infra.outbox import Outbox
from tasks.task_ends import send_missing_ends

_TOO_BUSY = {408, 429}


def show_table(rows: Sequence[Mapping[str, Any]], key: str, description: str) -> None:
    """Show rows; again under the same key is a new version of the same table."""
    _show(TableArtifact(table=[dict(row) for row in rows], key=key, description=description))


def show_markdown(text: str, key: str, description: str) -> None:
    """Show a text."""
    _show(MarkdownArtifact(markdown=text, key=key, description=description))


def show_link(address: str, key: str, text: str) -> None:
    """Show a link to somewhere else."""
    _show(LinkArtifact(link=address, link_text=text, key=key, description=text))


def send_what_is_kept(patience: float) -> None:
    """Send what the server has not got yet, waiting so many seconds for it to come back.

    Whoever has no patience does not look either which ends of tasks the server lacks.
    """
    if patience > 0:
        _send("ends of tasks", "", send_missing_ends)
    _OUTBOX.close(patience)


class Bar:
    """The progress of one step; only its latest state is kept while the server is away."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._artifact: UUID | None = None
        self._latest = (0.0, "")
        self._is_queued = False

    def show(self, percent: float, text: str) -> None:
        """Say how far the step is, 0 to 100."""
        self._latest = (percent, text)
        if not self._is_queued:
            self._is_queued = True
            _send("progress", self._key, self._put)

    def _put(self) -> None:
        # Whoever says more from here on queues it again.
        self._is_queued = False
        percent, text = self._latest
        try:
            if self._artifact is None:
                made = create_progress_artifact(percent, key=self._key, description=text)
                self._artifact = made  # type: ignore[assignment]  # a UUID outside an event loop
            else:
                update_progress_artifact(self._artifact, percent, description=text)
        except BaseException:
            self._is_queued = True
            raise


def _show(artifact: Artifact) -> None:
    _send(artifact.type or "", artifact.key or "", lambda: artifact.create(_sync=True))  # type: ignore[call-arg]


def _send(what: str, key: str, call: Callable[[], Any]) -> None:
    if flow_run.get_id() is None:
        return
    # The call may be made later, by a thread that knows neither flow run nor settings.
    context = contextvars.copy_context()

    def make() -> None:
        context.run(_without_retries, call)

    _OUTBOX.send(what, {"key": key}, make)


def _without_retries(call: Callable[[], Any]) -> None:
    # Prefect's client would try for minutes, and whoever shows something would wait for it.
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        call()


def is_refused(error: Exception) -> bool:
    """Tell an answer that will not change from a server that is away or too busy."""
    if isinstance(error, PrefectHTTPStatusError):
        code = error.response.status_code
        return 400 <= code < 500 and code not in _TOO_BUSY
    return isinstance(error, TypeError | ValueError)


_OUTBOX = Outbox(None, is_refused, server="Prefect")
