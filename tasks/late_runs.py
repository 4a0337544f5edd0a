"""Tell people of flow runs that were due and have not started.

`flows.serve` looks once a minute. It cannot tell of its own end: where that matters, let cron on
another machine look, with `$PREFECT_API_URL` and `$CCAI_ALERTS` set as for `flows.serve`.

    python -m tasks.late_runs --minutes 15

    with telling_of_late_runs(15):
        ...
"""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError

from tasks.alerts import Alerts
from tasks.pages import page_of_flow_run

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 60.0
# What was said is kept where flows work by default.
_FOLDER = Path("runs")
_NAMED = 3


def late_runs(minutes: float) -> list[FlowRun]:
    """Return the flow runs of our deployments that were due so long ago and have not started.

    Raises:
        httpx.TransportError: the server does not answer.
    """
    due = datetime.now(UTC) - timedelta(minutes=minutes)
    wanted = FlowRunFilter(
        state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Late"])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=due),
        tags=FlowRunFilterTags(all_=["ccai"]),
    )
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_run_filter=wanted)


def tell_of_late_runs(minutes: float, folder: Path) -> int:
    """Alert once for each deployment that has late flow runs; returns how many are late.

    Raises:
        httpx.TransportError: the server does not answer.
    """
    found = late_runs(minutes)
    of_deployment: defaultdict[UUID | None, list[FlowRun]] = defaultdict(list)
    for run in found:
        of_deployment[run.deployment_id].append(run)
    for deployment, runs in of_deployment.items():
        Alerts(folder).say(
            f"late/{deployment}",
            f"{len(runs)} flow runs are late"
            if len(runs) > 1
            else f"Flow run {runs[0].name} is late",
            "\n".join(
                [
                    *(_line(run) for run in runs[:_NAMED]),
                    "Nobody has started them: is `flows.serve` (or a worker) running, is its "
                    "deployment paused, do others take all places?",
                ]
            ),
        )
    return len(found)


@contextmanager
def telling_of_late_runs(minutes: float) -> Iterator[None]:
    """Look once a minute while the `with` block runs; 0 minutes: never."""
    if not minutes:
        yield
        return
    over = threading.Event()
    context = copy_context()
    thread = threading.Thread(
        target=context.run, args=(_look_until, over, minutes), name="late runs", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()


def _look_until(over: threading.Event, minutes: float) -> None:
    while not over.wait(_LOOK_EVERY_S):
        try:
            tell_of_late_runs(minutes, _FOLDER)
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            logger.debug("Prefect's server does not say what is late (%s).", error)


def _line(run: FlowRun) -> str:
    due = f"{run.expected_start_time:%Y-%m-%d %H:%M} UTC" if run.expected_start_time else "?"
    return f"{run.name}, due {due}: {page_of_flow_run(run.id) or run.id}"


def main(arguments: Sequence[str]) -> int:
    """Look once; returns the exit code: 0, or 1 when something is late or cannot be known."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.late_runs", description="Alert of flow runs that have not started."
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="so long after they were due")
    given = parser.parse_args(arguments)
    try:
        count = tell_of_late_runs(given.minutes, _FOLDER)
    except (httpx.TransportError, PrefectHTTPStatusError) as error:
        Alerts(_FOLDER).say(
            "late/server", "Prefect's server does not answer", f"Nothing is known of it: {error}"
        )
        return 1
    print(f"{count} flow runs are late.")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
