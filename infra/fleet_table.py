"""A fleet as a table for people: instances, their state and place, and what they are doing.

console.print(table("judge", state, loads, before))
"""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table
from rich.text import Text

from infra.endpoint import Endpoint
from infra.fleet_metrics import Load
from infra.fleet_plan import InstanceView

_STYLES = {
    "ready": "green",
    "starting": "yellow",
    "silent": "red",
    "draining": "dim",
    "queued": "cyan",
    "waiting": "dim",
}
_NUMBERS = ("tok/s", "run", "wait", "err")


def table(
    name: str,
    wanted: int,
    instances: tuple[InstanceView, ...],
    loads: Mapping[str, Load],
    before: Mapping[str, Load],
) -> Table:
    """Return the table.

    Args:
        name: of the fleet.
        wanted: instances asked for.
        instances: as the driver sees them.
        loads: what each instance is doing now, by name.
        before: the same at an earlier look, for rates.
    """
    ready = sum(each.state == "ready" for each in instances)
    made = Table(
        title=f"{name}: {ready} of {wanted} ready",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in ("#", "state", "job", "node", "address"):
        made.add_column(heading, no_wrap=True)
    for heading in _NUMBERS:
        made.add_column(heading, justify="right", no_wrap=True)
    # The only one that wraps, so the only one that gives way on a narrow terminal.
    made.add_column("note", max_width=60, min_width=12)
    for each in instances:
        made.add_row(
            *_place(each), *_numbers(loads.get(each.name), before.get(each.name)), _note(each)
        )
    if len(instances) > 1:
        made.add_section()
        made.add_row("all", "", "", "", "", *_sums(loads, before), "")
    return made


def by_instance(loads: Mapping[Endpoint, Load]) -> dict[str, Load]:
    """Return loads by the instances' names."""
    return {endpoint.instance: load for endpoint, load in loads.items()}


def _place(each: InstanceView) -> tuple[Text, ...]:
    # As text: whatever a scheduler or an engine says is no markup.
    state = Text(each.state, style=_STYLES[each.state])
    return (
        Text(each.name),
        state,
        Text(each.job_id),
        Text(each.node),
        Text(each.url.removeprefix("http://")),
    )


def _note(each: InstanceView) -> Text:
    restarted = f"queued again {each.restarts}x " if each.restarts else ""
    return Text(f"{restarted}{each.note}", overflow="ellipsis", no_wrap=True)


def _numbers(load: Load | None, before: Load | None) -> tuple[str, ...]:
    if load is None:
        return ("",) * len(_NUMBERS)
    rate = load.tokens_per_second(before)
    return (
        "" if rate is None else f"{rate:.0f}",
        str(load.running),
        "" if load.waiting is None else str(load.waiting),
        str(load.errors),
    )


def _sums(loads: Mapping[str, Load], before: Mapping[str, Load]) -> tuple[str, ...]:
    rates = [load.tokens_per_second(before.get(name)) for name, load in loads.items()]
    known = [rate for rate in rates if rate is not None]
    waiting = [load.waiting for load in loads.values() if load.waiting is not None]
    return (
        f"{sum(known):.0f}" if known else "",
        str(sum(load.running for load in loads.values())),
        str(sum(waiting)) if waiting else "",
        str(sum(load.errors for load in loads.values())),
    )
