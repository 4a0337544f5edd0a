"""Everything that runs, as a table that keeps itself up to date, with what it costs.

    python -m infra.top --workspace runs
    python -m infra.top --workspace runs/poc --once --price 2.5

Watches workspaces: what other people's jobs do on the cluster, `squeue` says. Ctrl-C ends the view
and nothing else.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ccai_core.errors import CCAIError
from infra.fleet_metrics import Load
from infra.fleet_table import table as fleet_table
from infra.usage import FleetUse, JobUse, Use, look, workspaces

_STYLES = {"running": "green", "queued": "cyan", "lost": "red", "cancelled": "dim", "over": "dim"}
_SILENT_S = 30.0
# Of what is over, the last ones are shown: they are what one waits for.
_LAST = 5

Loads = dict[tuple[Path, str], dict[str, Load]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Show what runs until Ctrl-C, or once; return the exit code."""
    asked = _parser().parse_args(arguments)
    out = Console(highlight=False)
    try:
        before: Loads = {}
        if asked.once:
            out.print(_screen(asked, before))
            return 0
        with Live(console=out, auto_refresh=False, screen=out.is_terminal) as live:
            while True:
                live.update(_screen(asked, before), refresh=True)
                time.sleep(asked.every)
    except CCAIError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(Text(f"Error: {error}"))
        return 2
    except KeyboardInterrupt:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra.top", description="Jobs and fleets of workspaces, with their cost."
    )
    parser.add_argument(
        "--workspace", type=Path, nargs="+", default=[Path("runs")],
        help="workspaces, or folders of workspaces (default runs)",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="print it once")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two looks (2)")
    parser.add_argument("--price", type=float, help="of a GPU hour, to show cost as well")
    return parser


def _screen(asked: argparse.Namespace, before: Loads) -> RenderableType:
    uses = [look(each) for each in workspaces(asked.workspace)]
    return Group(*_parts(uses, asked.price, before))


def _parts(uses: Sequence[Use], price: float | None, before: Loads) -> Iterator[RenderableType]:
    yield Text(_headline(uses, price), style="bold")
    yield _jobs(uses, price)
    for use in uses:
        for fleet in use.fleets:
            yield from _fleet(use, fleet, before)


def _headline(uses: Sequence[Use], price: float | None) -> str:
    live = [job for use in uses for job in use.live]
    running = sum(job.state == "running" for job in live)
    held = sum(use.gpus_held for use in uses)
    hours = sum(use.gpu_hours for use in uses)
    cost = "" if price is None else f", {hours * price:,.2f} spent, {held * price:,.2f} an hour now"
    return (
        f"{running} jobs run, {len(live) - running} queue; {held} GPUs held; "
        f"{hours:.2f} GPU hours{cost}"
    )


def _jobs(uses: Sequence[Use], price: float | None) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("workspace", "job", "role", "state", "node"):
        made.add_column(heading, no_wrap=True)
    for heading in ("done", "time", "GPUs", "GPU h", *(("cost",) if price is not None else ())):
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("note", max_width=50, min_width=8)
    for use in uses:
        over = [job for job in use.jobs if job not in use.live]
        for job in (*use.live, *over[-_LAST:]):
            made.add_row(*_row(use, job, price))
    return made


def _row(use: Use, job: JobUse, price: float | None) -> Iterator[Text]:
    # As text: what a scheduler or a user has named is no markup.
    yield Text(use.workspace.name)
    yield Text(job.key if job.attempt == 1 else f"{job.key} ({job.attempt})")
    yield Text(job.role)
    yield Text(job.state, style=_STYLES[job.state])
    yield Text(job.node)
    yield Text("" if job.done is None else f"{job.done:.0%}")
    yield Text(_duration(job.seconds))
    yield Text(str(job.gpus))
    yield Text(f"{job.gpu_hours:.2f}")
    if price is not None:
        yield Text(f"{job.gpu_hours * price:,.2f}")
    yield Text(job.reason, overflow="ellipsis", no_wrap=True)


def _fleet(use: Use, fleet: FleetUse, before: Loads) -> Iterator[RenderableType]:
    last = before.get((use.workspace, fleet.name), {})
    name = f"{use.workspace.name}/{fleet.name}"
    yield fleet_table(name, fleet.state.wanted, fleet.state.instances, fleet.loads, last)
    before[use.workspace, fleet.name] = dict(fleet.loads)
    if fleet.silent is None or fleet.silent > _SILENT_S:
        since = "ever" if fleet.silent is None else f"{fleet.silent:.0f} s"
        yield Text(f"Its driver was not heard for {since}; shown is what it saw last.", style="red")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


if __name__ == "__main__":
    sys.exit(main())
