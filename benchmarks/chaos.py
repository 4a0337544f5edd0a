"""Break a real Slurm in every way at random moments, and see whether anything is lost.

Starts a throw-away Slurm of four nodes. In each round a driver keeps a fleet of three light
engines, asks it 150 questions through the client and the journal, and runs a job that counts with
checkpoints and a map of twelve small jobs. Meanwhile one to three things happen to it:

    kill-driver        kill -9; the same command again some seconds or a minute and a half later
    scancel-instance   an instance's job is cancelled
    kill-engine        kill -9 the server behind an instance
    kill-instance      kill -9 an instance's whole process
    kill-slurmd        kill -9 the daemon of a node that is in use; it is back soon, or too late
    stop-slurmctld     Slurm's controller goes away for a while
    preempt            a job of higher priority takes two to four nodes, with or without GraceTime
    requeue            a running job is put back into the queue

A round is right when the driver ends in time, every answer and every job's result is there, right
and once, and 90 s after its end no job and no process is left; nor may any be left when a killed
driver has not come back for 90 s.

    python benchmarks/chaos.py --rounds 20
    python benchmarks/chaos.py --rounds 1 --only kill-slurmd --keep
    python benchmarks/chaos.py --seed 7 --first 12 --rounds 1     # round 12 of seed 7 again

Prints a table. Exit code 1: something was lost, doubled, left over, or did not end; then the
round's folder stays, with driver.log in it. It says nothing of speed: a busy machine takes longer.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # started as a file
    sys.path.insert(0, str(ROOT))

from benchmarks.chaos_checks import Verdict, check, orphans, wait_for_nothing  # noqa: E402
from benchmarks.chaos_engine import write_program  # noqa: E402
from benchmarks.chaos_events import (  # noqa: E402
    EVENTS,
    ORPHANS_S,
    PREEMPTOR,
    Event,
    NoVictimError,
    Scene,
    schedule,
)
from tests.cluster.slurm_lab import LabError, SlurmLab, missing  # noqa: E402

_TICK_S = 0.25
_AGAIN_S = 1.0


@dataclass
class Round:
    """One round: its plan while it runs, its row of the table afterwards."""

    number: int
    partition: str
    events: list[Event]
    seconds: float = 0.0
    drivers: int = 0
    exit_code: int | None = None
    verdict: Verdict = field(default_factory=Verdict)
    gone_after: float = 0.0
    left: list[str] = field(default_factory=list)

    @classmethod
    def drawn(cls, seed: int, number: int, only: str | None = None) -> Self:
        """Return what the dice say of a round: the same for the same numbers."""
        dice = random.Random(f"{seed}-{number}")
        partition = dice.choice(["low", "kill"])
        # Each kind has its turn, so that every one is seen.
        kinds = list(EVENTS)
        return cls(number, partition, schedule(dice, kinds[(number - 1) % len(kinds)], only))

    @property
    def is_right(self) -> bool:
        """Whether nothing went wrong."""
        return self.exit_code == 0 and not (
            self.left or self.verdict.lost or self.verdict.duplicated
        )

    def row(self) -> str:
        """Return its row of the table."""
        said = "; ".join(
            f"{each.at:.0f} s {each.kind} {each.hit}" if each.hit else f"({each.kind}: too late)"
            for each in sorted(self.events, key=lambda event: event.at)
        )
        verdict = self.verdict
        cells = [
            self.number, self.partition, said, f"{self.seconds:.0f}", self.drivers,
            verdict.attempts, verdict.restarts, f"{self.gone_after:.0f}", len(self.left),
            len(verdict.lost), len(verdict.duplicated), "yes" if self.is_right else "NO",
        ]  # fmt: skip
        return f"| {' | '.join(map(str, cells))} |"


HEAD = [
    "round", "partition", "events", "seconds", "drivers", "jobs again", "restarts",
    "all gone after, s", "orphans", "lost", "duplicated", "right",
]  # fmt: skip


class Play:
    """Runs one round: the driver, the events in their order, the end."""

    def __init__(self, lab: SlurmLab, folder: Path, this: Round, calls: int) -> None:
        self.lab, self.folder, self.this, self.calls = lab, folder, this, calls
        self.driver: subprocess.Popen[bytes] | None = None
        self.began = time.monotonic()
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.scene = Scene(lab, folder, self.kill_driver, self.come_back)

    def start_driver(self) -> None:
        """Start the driver, always with the same words."""
        command = [sys.executable, "-m", "benchmarks.chaos_driver", str(self.folder)]
        command += ["--partition", self.this.partition, "--calls", str(self.calls)]
        with (self.folder / "driver.log").open("ab") as log:
            self.driver = subprocess.Popen(  # noqa: S603 - our own command, no shell
                command, cwd=ROOT, env=os.environ | self.lab.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.this.drivers += 1

    def kill_driver(self) -> None:
        """Kill -9 the driver, if it runs."""
        if self.driver is None or self.driver.poll() is not None:
            raise NoVictimError
        self.driver.kill()
        self.driver.wait()
        self.driver = None

    def come_back(self, absent: float) -> None:
        """Start the driver again; of one that was away for long, nothing may be left by now."""
        if absent >= ORPHANS_S:
            self.this.left += orphans(self.lab, self.folder)
        self.start_driver()

    def _end_driver(self) -> None:
        if self.driver is not None:
            self.driver.kill()
            self.driver.wait()

    def run(self, most_seconds: float) -> None:
        """Run until the driver ends by itself, or for so long; then bring the lab in order."""
        self.began = time.monotonic()
        self.start_driver()
        for event in self.this.events:
            self._soon(event.at, functools.partial(self._strike, event))
        while (now := self._now()) < most_seconds:
            code = None if self.driver is None else self.driver.poll()
            if code is not None:
                self.this.exit_code = code
                break
            self._do_what_is_due(now)
            time.sleep(_TICK_S)
        else:
            self._end_driver()
        self.this.seconds = self._now()

    def _now(self) -> float:
        return time.monotonic() - self.began

    def _soon(self, at: float, act: Callable[[], None]) -> None:
        self.due.append((at, act))

    def _do_what_is_due(self, now: float) -> None:
        ready = [each for each in self.due if each[0] <= now]
        self.due = [each for each in self.due if each[0] > now]
        for _, act in sorted(ready, key=lambda each: each[0]):
            act()

    def _strike(self, event: Event) -> None:
        try:
            second = event.strike(self.scene)
        except (NoVictimError, LabError):
            self._soon(self._now() + _AGAIN_S, functools.partial(self._strike, event))
            return
        event.at = self._now()
        print(f"  {event.at:5.1f} s  {event.kind} {event.hit}", flush=True)
        if second is not None:
            self._soon(event.at + event.lasts, functools.partial(self._follow_up, second))

    def _follow_up(self, act: Callable[[], None]) -> None:
        try:
            act()
        except LabError:  # Slurm's controller is away at the moment
            self._soon(self._now() + _AGAIN_S, functools.partial(self._follow_up, act))


def play(lab: SlurmLab, folder: Path, this: Round, calls: int, most_seconds: float) -> None:
    """Run a round, bring the lab in order, and look at what has come of it."""
    folder.mkdir(parents=True)
    write_program(folder / "bin" / "vllm")
    Play(lab, folder, this, calls).run(most_seconds)
    lab.heal()
    lab.run("scancel", f"--name={PREEMPTOR}")
    this.gone_after, left = wait_for_nothing(lab, ORPHANS_S)
    this.left += left
    this.verdict = check(folder, calls)
    for problem in [*this.left, *this.verdict.lost, *this.verdict.duplicated]:
        print(f"  WRONG: {problem}", flush=True)
    if this.exit_code != 0:
        print(f"  WRONG: the driver's exit code is {this.exit_code}; see {folder}/driver.log")
    lab.cancel_all()


def main() -> int:
    """Play all rounds and print the table."""
    asked = _arguments()
    if lacks := missing():
        print(lacks, file=sys.stderr)
        return 2
    root = (asked.folder or Path(tempfile.mkdtemp(prefix="chaos-"))).resolve()
    rounds: list[Round] = []
    with SlurmLab(nodes=4, port=asked.port) as lab:
        for number in range(asked.first, asked.first + asked.rounds):
            this = Round.drawn(asked.seed, number, asked.only)
            rounds.append(this)
            print(f"Round {number} ({this.partition})", flush=True)
            folder = root / f"round-{number}"
            play(lab, folder, this, asked.calls, asked.most_seconds)
            print(f"  {this.row()}", flush=True)
            if this.is_right and not asked.keep:
                shutil.rmtree(folder)
    print(f"\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for this in rounds:
        print(this.row())
    right = sum(each.is_right for each in rounds)
    print(f"\n{right} of {len(rounds)} rounds right; {'kept' if asked.keep else 'rest'} in {root}")
    return 0 if right == len(rounds) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="how many")
    parser.add_argument("--first", type=int, default=1, help="number of the first round")
    parser.add_argument("--seed", type=int, default=0, help="what the dice start from")
    parser.add_argument("--only", choices=EVENTS, help="one event of this kind a round")
    parser.add_argument("--calls", type=int, default=150, help="questions a round")
    parser.add_argument(
        "--most-seconds", type=float, default=480, help="a round that takes longer is wrong"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folders of right rounds, too")
    parser.add_argument("--folder", type=Path, help="where rounds work; default: a temporary one")
    parser.add_argument("--port", type=int, help="first of the lab's 500 ports; default: free ones")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
