"""The commands of `python -m infra.fleet`: up, status, scale and down.

    python -m infra.fleet up --cluster slurm-cpu --model ./model --instances 4
    python -m infra.fleet scale 8            # from another shell

`up` stays in the foreground: it is the fleet's driver. Exit code 0 is done, 2 something to mend,
130 interrupted.
"""

from __future__ import annotations

import json
import logging
import shlex
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import tyro
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler

from ccai_core.config import explain
from ccai_core.errors import CCAIError, ConfigError, FleetError
from infra.cluster import ClusterConfig, load_cluster
from infra.endpoint import read_key, registered
from infra.fleet_driver import Fleet, end_orphans
from infra.fleet_metrics import Load, measure
from infra.fleet_options import Command, Down, Scale, Status, Up, existing, make_plan
from infra.fleet_plan import FleetFiles, FleetPlan
from infra.fleet_table import by_instance, table
from infra.lease import age
from infra.router import Router

_LOOK_S = 2.0
_LINE_EVERY_S = 30.0
_RATE_S = 1.0
_DRIVER_GONE_S = 30.0
_DOWN_S = 90.0
_MOST_INSTANCES = 512


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    out = Console(soft_wrap=True)
    shown = RichHandler(logging.INFO, out, show_path=False, markup=False)
    logging.getLogger("infra").addHandler(shown)
    logging.getLogger("infra").setLevel(logging.INFO)
    try:
        asked = tyro.cli(
            Command,
            prog="python -m infra.fleet",
            description=__doc__,
            args=None if arguments is None else list(arguments),
        )
        return _run(asked, out)
    except ValidationError as error:
        _say_error(explain(error, Up, "fleet"))
        return 2
    except CCAIError as error:
        _say_error(str(error))
        return 2
    except KeyboardInterrupt:
        out.print("Ended.")
        return 130
    finally:
        logging.getLogger("infra").removeHandler(shown)


def _run(asked: Up | Status | Scale | Down, out: Console) -> int:
    if isinstance(asked, Up):
        return _up(asked, out)
    files = existing(asked)
    if isinstance(asked, Status):
        return _status(files, out)
    if isinstance(asked, Scale):
        return _scale(files, asked.instances, out)
    return _down(files, out)


def _up(asked: Up, out: Console) -> int:
    cluster = load_cluster(asked.cluster)
    plan = make_plan(asked, cluster)
    folder, jobs = asked.workspace / "fleets" / plan.name, asked.workspace / "jobs"
    fleet = Fleet(plan, cluster, folder, jobs)
    if asked.dry_run:
        out.print(fleet.render(), markup=False, highlight=False)
        out.print(_cost(plan, cluster), markup=False, highlight=False)
        return 0
    # A terminal that closes and a polite `kill` end the fleet as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with ExitStack() as held:
        held.enter_context(fleet)
        url = held.enter_context(_router(asked, fleet)).url if asked.router else None
        _watch(fleet, url, out)
    return 0


def _router(asked: Up, fleet: Fleet) -> Router:
    last = fleet.files.router()
    # The same URL after a restart, as long as nobody has taken it meanwhile.
    port = asked.router_port or (int(last.url.rpartition(":")[2]) if last else 0)
    router = Router(fleet.endpoints, fleet.key, asked.router_host, port)
    fleet.files.write_router(router.url)
    return router


def _watch(fleet: Fleet, url: str | None, out: Console) -> None:
    """Show the table until the fleet is taken down; errors and Ctrl-C go up."""
    out.print(_introduction(fleet, url), markup=False, highlight=False, soft_wrap=True)
    before: dict[str, Load] = {}
    told, said_at = "", -_LINE_EVERY_S
    with Live(console=out, auto_refresh=False, transient=True) as live:
        while not fleet.was_asked_down:
            loads = by_instance(measure(fleet.endpoints(), fleet.key))
            shown = table(fleet.plan.name, fleet.wanted, fleet.states(), loads, before)
            before = loads
            if out.is_terminal:
                live.update(shown, refresh=True)
            else:
                line = ", ".join(f"{each.name} {each.state}" for each in fleet.states())
                if line != told or time.monotonic() - said_at > _LINE_EVERY_S:
                    out.print(line, markup=False, highlight=False)
                    told, said_at = line, time.monotonic()
            time.sleep(_LOOK_S)
    out.print("Taken down by request.")


def _introduction(fleet: Fleet, url: str | None) -> str:
    key = fleet.files.folder / "key"
    if url is None:
        return f"Fleet {fleet.plan.name}; key in {key}. Ctrl-C ends it."
    return (
        f"Fleet {fleet.plan.name} at {url}; Ctrl-C ends it. Try:\n\n"
        f"{curl(url, key, fleet.plan.serve.served_name)}\n\n"
        f"For OpenAI clients: base URL {url}/v1, key from {key}.\n"
    )


def curl(url: str, key: Path, model: str) -> str:
    """Return a command to paste that asks the fleet something; the key stays in its file."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 16,
    }
    # By way of a pipe: everybody on the machine can read the words of a command that runs.
    return (
        f"printf 'Authorization: Bearer %s' \"$(cat {shlex.quote(str(key))})\" | \\\n"
        f"curl {url}/v1/chat/completions -H @- \\\n"
        f"  -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
    )


def _cost(plan: FleetPlan, cluster: ClusterConfig) -> str:
    minutes = plan.minutes or cluster.for_role("fleet").minutes
    gpus = plan.instances * plan.serve.gpus
    what = f"{plan.instances} instances of {plan.serve.gpus} GPUs"
    if not gpus:
        return f"Cost: {what}: no GPU hours."
    if minutes is None:
        return f"Cost: {what}: {gpus} GPU hours each hour, and no time limit."
    return (
        f"Cost: {what}: {gpus} GPU hours each hour that it is up, "
        f"{gpus * minutes / 60:.1f} by the time limit of {minutes:g} minutes; "
        "instances are queued again there until you end the fleet."
    )


def _status(files: FleetFiles, out: Console) -> int:
    state = files.state()
    if state is None:
        raise FleetError(f"{files.folder}: the fleet has not begun yet.")
    if state.ended:
        out.print("The fleet was ended.", state.error, markup=False, highlight=False)
        return 0
    first, loads = _two_looks(files)
    out.print(table(files.folder.name, state.wanted, state.instances, loads, first))
    router = files.router()
    if router is not None:
        out.print(f"URL: {router.url} (key in {files.folder / 'key'})", highlight=False)
    silence = _driver_gone(files)
    if silence is not None:
        out.print(
            f"Its driver (process {state.pid} on {state.host}) is gone: nothing of it for "
            f"{silence}. What is shown is what it saw last. Start the same `up` again soon to go "
            "on with these instances, or they end.",
            style="red",
            highlight=False,
        )
    return 0


def _two_looks(files: FleetFiles) -> tuple[dict[str, Load], dict[str, Load]]:
    """Ask the servers twice: a rate takes two looks."""
    endpoints, key = registered(files.folder), read_key(files.folder)
    first = measure(endpoints, key)
    time.sleep(_RATE_S if first else 0)
    return by_instance(first), by_instance(measure(first, key))


def _scale(files: FleetFiles, instances: int, out: Console) -> int:
    if not 1 <= instances <= _MOST_INSTANCES:
        raise ConfigError(
            f"A fleet has 1 to {_MOST_INSTANCES} instances, not {instances}. To end it: "
            "`python -m infra.fleet down`."
        )
    _check_driven(files)
    files.ask_scale(instances)
    out.print(f"Asked for {instances} instances; `status` shows how it goes.", highlight=False)
    return 0


def _down(files: FleetFiles, out: Console) -> int:
    if end_orphans(files):
        out.print("Its driver was gone already; nothing of the fleet is left.")
        return 0
    files.ask_down()
    until = time.monotonic() + _DOWN_S
    while time.monotonic() < until:
        state = files.state()
        if state is not None and state.ended:
            out.print("The fleet is down.")
            return 0
        time.sleep(0.2)
    raise FleetError(f"The fleet's driver has not ended it in {_DOWN_S:g} s; see its own output.")


def _check_driven(files: FleetFiles) -> None:
    state, silence = files.state(), _driver_gone(files)
    if state is None or state.ended or silence is not None:
        raise FleetError(
            f"Nobody drives the fleet in {files.folder} now. Start it with `up --instances N`."
        )


def _driver_gone(files: FleetFiles) -> str | None:
    """Return for how long its driver has said nothing, None while it is there."""
    silent = age(files.lease)
    if silent is None:
        return "an unknown time"
    return None if silent < _DRIVER_GONE_S else f"{silent:.0f} s"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say_error(text: str) -> None:
    Console(stderr=True, soft_wrap=True).print(text, style="red", markup=False, highlight=False)
