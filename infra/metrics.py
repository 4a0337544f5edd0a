"""Numbers for Prometheus: what runs in workspaces, what it takes, and how the fleets are.

    python -m infra.metrics --workspace runs --port 9464
    curl http://127.0.0.1:9464/metrics

Listens on this machine only unless told otherwise; there is no password. docs/monitoring.md lists
the names; docker/grafana/ccai.json draws them.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ccai_core.errors import CCAIError
from infra.usage import LIVE, FleetUse, Use, look, workspaces

logger = logging.getLogger(__name__)


class Workspaces(Collector):
    """Looks at the workspaces each time that Prometheus asks."""

    def __init__(self, named: Sequence[Path], price: float | None = None) -> None:
        """Watch workspaces, and those that appear below them later.

        Args:
            named: workspaces, or folders of them.
            price: of a GPU hour, in whatever currency; none: no spend is told.
        """
        self._named, self._price = named, price

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        uses, unread = [], 0
        for each in workspaces(self._named):
            try:
                uses.append(look(each))
            except CCAIError as error:
                # One damaged record must not blind whoever watches the others.
                unread += 1
                logger.warning("%s", error)
        yield GaugeMetricFamily("ccai_workspaces_unreadable", "Damaged workspaces.", value=unread)
        yield from _of_jobs(uses)
        yield from _of_hours(uses, self._price)
        yield from _of_fleets(uses)
        yield from _of_disks(uses)


def _of_jobs(uses: Sequence[Use]) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("ccai_jobs", "Jobs.", labels=["workspace", "role", "state"])
    held = GaugeMetricFamily("ccai_gpus_held", "GPUs of running jobs.", labels=["workspace"])
    done = GaugeMetricFamily("ccai_job_done_ratio", "How far.", labels=["workspace", "job"])
    for use in uses:
        counts = Counter((job.role, job.state) for job in use.jobs)
        for role in {job.role for job in use.jobs}:
            for state in LIVE:  # a series that ends at zero is seen; one that stops is not
                counts.setdefault((role, state), 0)
        for (role, state), number in sorted(counts.items()):
            jobs.add_metric([use.workspace.name, role, state], number)
        held.add_metric([use.workspace.name], use.gpus_held)
        for job in use.live:
            if job.done is not None:
                done.add_metric([use.workspace.name, job.key], job.done)
    yield from (jobs, held, done)


def _of_hours(uses: Sequence[Use], price: float | None) -> Iterator[Metric]:
    labels = ["workspace", "role"]
    hours = CounterMetricFamily("ccai_gpu_hours", "GPU hours of all jobs so far.", labels=labels)
    spend = CounterMetricFamily("ccai_spend", "GPU hours times their price.", labels=labels)
    for use in uses:
        by_role: dict[str, float] = defaultdict(float)
        for job in use.jobs:
            by_role[job.role] += job.gpu_hours
        for role, number in sorted(by_role.items()):
            hours.add_metric([use.workspace.name, role], number)
            if price is not None:
                spend.add_metric([use.workspace.name, role], number * price)
    yield hours
    if price is not None:
        yield spend


def _of_fleets(uses: Sequence[Use]) -> Iterator[Metric]:
    fleet, instance = ["workspace", "fleet"], ["workspace", "fleet", "instance"]
    wanted = GaugeMetricFamily("ccai_fleet_wanted", "Instances asked for.", labels=fleet)
    there = GaugeMetricFamily(
        "ccai_fleet_instances", "Instances by state.", labels=[*fleet, "state"]
    )
    silent = GaugeMetricFamily(
        "ccai_fleet_driver_silent_seconds", "Since its driver was heard.", labels=fleet
    )
    running = GaugeMetricFamily("ccai_fleet_requests_running", "At work.", labels=instance)
    waiting = GaugeMetricFamily("ccai_fleet_requests_waiting", "In the queue.", labels=instance)
    tokens = CounterMetricFamily("ccai_fleet_tokens", "Generated.", labels=instance)
    errors = CounterMetricFamily("ccai_fleet_errors", "Requests that failed.", labels=instance)
    for use, each in _fleets(uses):
        names = [use.workspace.name, each.name]
        wanted.add_metric(names, each.state.wanted)
        states = Counter({"ready": 0, "queued": 0})
        states.update(view.state for view in each.state.instances)
        for state, number in sorted(states.items()):
            there.add_metric([*names, state], number)
        if each.silent is not None:
            silent.add_metric(names, each.silent)
        for name, load in each.loads.items():
            running.add_metric([*names, name], load.running)
            tokens.add_metric([*names, name], load.tokens)
            errors.add_metric([*names, name], load.errors)
            if load.waiting is not None:
                waiting.add_metric([*names, name], load.waiting)
    yield from (wanted, there, silent, running, waiting, tokens, errors)


def _of_disks(uses: Sequence[Use]) -> Iterator[Metric]:
    free = GaugeMetricFamily("ccai_disk_free_bytes", "Free on its disk.", labels=["workspace"])
    for use in uses:
        free.add_metric([use.workspace.name], use.free)
    yield free


def _fleets(uses: Sequence[Use]) -> Iterator[tuple[Use, FleetUse]]:
    for use in uses:
        for each in use.fleets:
            yield use, each


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until ended; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.metrics", description="Numbers of workspaces for Prometheus."
    )
    parser.add_argument(
        "--workspace", type=Path, nargs="+", default=[Path("runs")],
        help="workspaces, or folders of workspaces (default runs)",
    )  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (this machine)")
    parser.add_argument("--port", type=int, default=9464)
    parser.add_argument("--price", type=float, help="of a GPU hour; tells ccai_spend_total")
    asked = parser.parse_args(arguments)
    ended = threading.Event()
    try:
        workspaces(asked.workspace)
        registry = CollectorRegistry()
        registry.register(Workspaces(asked.workspace, asked.price))
        server, thread = start_http_server(asked.port, asked.host, registry)
    except (CCAIError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    print(f"http://{asked.host}:{server.server_port}/metrics; Ctrl-C ends it.", flush=True)
    ended.wait()
    server.shutdown()
    thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
