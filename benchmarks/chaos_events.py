"""What can go wrong on a cluster, as things to do to a lab while a driver works on it.

An event finds its victim when its time has come; where there is none yet it is tried again a moment
later. Some come in two parts: what was stopped is started again after a while.

    for event in schedule(dice, first="kill-driver"): ...
    undo = event.strike(scene)
"""

from __future__ import annotations

import functools
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from infra.endpoint import registered
from tests.cluster.slurm_lab import SlurmLab

T = TypeVar("T")

EARLIEST_S, LATEST_S = 2.0, 28.0
ORPHANS_S = 90.0
"""Nothing may be left this long after the driver."""

PREEMPTOR = "preemptor"


class NoVictimError(Exception):
    """There is nothing yet that this event could hit."""


@dataclass
class Scene:
    """A lab, the folder of the round, and how to kill and start its driver."""

    lab: SlurmLab
    folder: Path
    kill_driver: Callable[[], None]
    come_back: Callable[[float], None]
    """Starts the driver again, told how long it was away."""

    def jobs(self) -> list[tuple[str, str, str]]:
        """Return id, name and node of the running jobs of the round."""
        text = self.lab.run("squeue", "-h", "-r", "-t", "running", "-o", "%i|%j|%N")
        rows = [line.split("|") for line in text.splitlines()]
        return [(row[0], row[1], row[2]) for row in rows if row[1] != PREEMPTOR]


@dataclass
class Event:
    """One thing that happens: when, what, and what is to follow how much later."""

    at: float
    """Seconds since the driver's first start."""
    kind: str
    lasts: float = 0.0
    """Seconds until its second part."""
    dice: random.Random = field(default_factory=random.Random, repr=False)
    hit: str = ""
    """What it hit, for the table; empty: it came too late."""

    def strike(self, scene: Scene) -> Callable[[], None] | None:
        """Do it; return what is to be done `lasts` seconds later.

        Raises:
            NoVictimError, LabError: not now.
        """
        return EVENTS[self.kind](self, scene)


def kill_driver(event: Event, scene: Scene) -> Callable[[], None]:
    """Kill -9; the same command again while its jobs live, or after they have given up."""
    scene.kill_driver()
    event.hit = f"back after {event.lasts:.0f} s"
    return functools.partial(scene.come_back, event.lasts)


def scancel_instance(event: Event, scene: Scene) -> None:
    """Cancel an instance's job, as an administrator does."""
    job, name, _ = _pick(event, [each for each in scene.jobs() if _is_instance(each[1])])
    scene.lab.run("scancel", job)
    event.hit = _short(name)


def kill_engine(event: Event, scene: Scene) -> None:
    """Kill -9 the engine behind an instance."""
    program = str(scene.folder / "bin" / "vllm")
    engines = [
        each
        for each in psutil.process_iter(["cmdline", "status"])
        if (each.info["cmdline"] or [])[1:2] == [program]
        and each.info["status"] != psutil.STATUS_ZOMBIE
    ]
    _kill(_pick(event, engines).pid)
    event.hit = "one"


def kill_instance(event: Event, scene: Scene) -> None:
    """Kill -9 a whole instance's process: nobody can say goodbye."""
    endpoint = _pick(event, registered(scene.folder / "fleets" / "chaos"))
    _kill(endpoint.pid)
    event.hit = endpoint.instance


def kill_slurmd(event: Event, scene: Scene) -> Callable[[], None]:
    """Kill -9 the daemon of a node on which something runs; its jobs' processes live on."""
    _, name, node = _pick(event, scene.jobs())
    daemon = f"slurmd-{node}"
    if not scene.lab.is_running(daemon):
        raise NoVictimError
    scene.lab.kill(daemon)
    event.hit = f"{node} ({_short(name)}) for {event.lasts:.0f} s"
    return lambda: scene.lab.start_daemon(daemon)


def stop_slurmctld(event: Event, scene: Scene) -> Callable[[], None]:
    """Stop Slurm's controller in order, and start it again."""
    if not scene.lab.is_running("slurmctld"):
        raise NoVictimError
    scene.lab.kill("slurmctld", signal.SIGTERM)
    event.hit = f"for {event.lasts:.0f} s"
    return lambda: scene.lab.start_daemon("slurmctld")


def preempt(event: Event, scene: Scene) -> None:
    """Let a job of higher priority take whole nodes away."""
    _pick(event, scene.jobs())
    nodes = event.dice.randint(2, 4)
    scene.lab.run(
        "sbatch", "-p", "high", f"-N{nodes}", "--exclusive", "-t2", "-o", "/dev/null",
        "-J", PREEMPTOR, "--wrap", f"sleep {event.lasts:.0f}",
    )  # fmt: skip
    event.hit = f"{nodes} nodes for {event.lasts:.0f} s"


def requeue(event: Event, scene: Scene) -> None:
    """Put a running job back into the queue, as an administrator does."""
    may_be = [each for each in scene.jobs() if not each[1].startswith("weigh")]
    job, name, _ = _pick(event, may_be)
    scene.lab.run("scontrol", "requeue", job)
    event.hit = _short(name)


EVENTS: dict[str, Callable[[Event, Scene], Callable[[], None] | None]] = {
    "kill-driver": kill_driver,
    "scancel-instance": scancel_instance,
    "kill-engine": kill_engine,
    "kill-instance": kill_instance,
    "kill-slurmd": kill_slurmd,
    "stop-slurmctld": stop_slurmctld,
    "preempt": preempt,
    "requeue": requeue,
}


def schedule(dice: random.Random, first: str, only: str | None = None) -> list[Event]:
    """Return one to three events: `first`, and what the dice say; or `only` that one."""
    kinds = [only] if only else [first, *dice.choices(list(EVENTS), k=dice.randint(0, 2))]
    events = [
        Event(dice.uniform(EARLIEST_S, LATEST_S), kind, _lasts(dice, kind), dice) for kind in kinds
    ]
    return sorted(events, key=lambda event: event.at)


def _lasts(dice: random.Random, kind: str) -> float:
    # A driver is back while its jobs still wait for it, or after they have given up; a slurmd
    # before Slurm misses it (SlurmdTimeout), or after it has started the jobs elsewhere.
    short, long = {
        "kill-driver": ((1, 10), (ORPHANS_S, ORPHANS_S)),
        "kill-slurmd": ((3, 12), (45, 60)),
        "stop-slurmctld": ((2, 8), (8, 25)),
        "preempt": ((5, 10), (10, 20)),
    }.get(kind, ((0, 0), (0, 0)))
    return dice.uniform(*(long if dice.random() < 0.4 else short))


def _pick(event: Event, victims: list[T]) -> T:
    if not victims:
        raise NoVictimError
    return event.dice.choice(victims)


def _kill(pid: int) -> None:
    try:
        psutil.Process(pid).kill()
    except psutil.NoSuchProcess:
        raise NoVictimError from None


def _is_instance(name: str) -> bool:
    return name.startswith("fleet-")


def _short(name: str) -> str:
    return name.partition(".")[0].removeprefix("fleet-chaos-")
