"""What must be true when a round is over: everything there once, and nothing left running.

verdict = check(folder, calls=150)
left = wait_for_nothing(lab, seconds=90)
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from submitit.core.utils import pickle_load

from benchmarks.chaos_engine import answer_to
from benchmarks.chaos_events import PREEMPTOR
from benchmarks.chaos_work import ITEMS, MODEL, STEPS, questions, weight
from ccai_core.journal_lines import read_lines
from ccai_core.types import Completion
from infra.job_files import Outcome, announced
from infra.processes import COOKIE
from tests.cluster.lab_guard import lab_processes
from tests.cluster.slurm_lab import SlurmLab

_LOOK_S = 1.0


@dataclass
class Verdict:
    """What a round came to."""

    lost: list[str] = field(default_factory=list)
    """Results that are missing or wrong."""
    duplicated: list[str] = field(default_factory=list)
    """Results that were accepted more than once."""
    attempts: int = 0
    """Jobs that had to be submitted again."""
    restarts: int = 0
    """Starts of a job by Slurm, beyond the first."""


def check(folder: Path, calls: int) -> Verdict:
    """Compare all that a round has left with what it should be."""
    verdict = Verdict()
    _check_results(folder, calls, verdict)
    _check_journal(folder, calls, verdict)
    _check_jobs(folder, verdict)
    _check_steps(folder, verdict)
    return verdict


def wait_for_nothing(lab: SlurmLab, seconds: float) -> tuple[float, list[str]]:
    """Wait until no job and no process is left; return how long that took, and what is left."""
    began = time.monotonic()
    while True:
        left = [f"job {each}" for each in lab.jobs()] + left_processes(lab)
        waited = time.monotonic() - began
        if not left or waited > seconds:
            return waited, left
        time.sleep(_LOOK_S)


def left_processes(lab: SlurmLab) -> list[str]:
    """Return what runs of a round: jobs, engines, drivers; not the lab's own daemons."""
    daemons = {lab.pid(name) for name in lab.daemons}
    found = []
    for process in lab_processes(lab.folder):
        try:
            # slurmctld has a helper of its own.
            if process.pid not in daemons and process.ppid() not in daemons:
                found.append(f"{process.pid} {' '.join(process.cmdline())}"[:200])
        except psutil.Error:
            continue
    return found


def orphans(lab: SlurmLab, folder: Path) -> list[str]:
    """Return the jobs and processes of a round while it is going on."""
    names = lab.run("squeue", "-h", "-r", "-o", "%i %j").splitlines()
    found = [f"job {each}" for each in names if not each.endswith(f" {PREEMPTOR}")]
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.environ().get(COOKIE, "")]
            if any(word.startswith(str(folder)) for word in words):
                found.append(f"{process.pid} {' '.join(process.cmdline())}"[:200])
        except (psutil.Error, OSError):
            continue
    return found


def _check_results(folder: Path, calls: int, verdict: Verdict) -> None:
    file = folder / "results.json"
    if not file.exists():
        verdict.lost.append("results.json")
        return
    results = json.loads(file.read_text())
    right = {
        "answers": [answer_to(each.messages[-1].content) for each in questions(calls)],
        "counted": STEPS,
        "weighed": [weight(number) for number in range(ITEMS)],
    }
    for name, expected in right.items():
        if results[name] != expected:
            verdict.lost.append(f"{name}: {str(results[name])[:200]}")


def _check_journal(folder: Path, calls: int, verdict: Verdict) -> None:
    file = folder / "journal" / "calls.jsonl"
    written: Counter[str] = Counter()
    texts: dict[str, str] = {}
    for line, found in read_lines(file) if file.exists() else ():
        if found is None or not isinstance(found[1], Completion):
            verdict.lost.append(f"journal line {line.number}")
            continue
        written[found[0]] += 1
        texts[found[0]] = found[1].text
    for call in questions(calls):
        key, question = call.key(MODEL), call.messages[-1].content
        if texts.get(key) != answer_to(question):
            verdict.lost.append(f"{question} -> {texts.get(key)}")
    verdict.duplicated += [f"call {key}" for key, times in written.items() if times > 1]


def _check_jobs(folder: Path, verdict: Verdict) -> None:
    """Every job of count and weigh has come to one value, whatever was tried before."""
    keys = ["count", *(f"weigh.{number}" for number in range(ITEMS))]
    for key in keys:
        outcomes = [pickle_load(file) for file in (folder / "jobs" / key).glob("*/outcome-*.pkl")]
        values = [each for each in outcomes if isinstance(each, Outcome) and each.kind == "value"]
        if not values:
            verdict.lost.append(f"job {key}")
        elif len(values) > 1:
            verdict.duplicated.append(f"job {key}: {len(values)} results")
    for home in (folder / "jobs").glob("*/"):
        attempts = list(home.glob("attempt-*"))
        verdict.attempts += max(0, len(attempts) - 1)
        verdict.restarts += sum(announced(each) or 0 for each in attempts)


def _check_steps(folder: Path, verdict: Verdict) -> None:
    """No copy of the counting job worked after a newer one had begun to, and none went back."""
    file = folder / "steps"
    lines = file.read_text().splitlines() if file.exists() else []
    copies = [tuple(map(int, line.split()[:2])) for line in lines]
    if copies != sorted(copies):
        verdict.duplicated.append(f"two copies counted at once: {lines}")
    reached = [int(line.split()[2]) for line in lines]
    if reached != sorted(reached):
        verdict.lost.append(f"steps that were counted already: {lines}")
