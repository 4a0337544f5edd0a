"""Kill, pre-empt and time out a training of many processes on a real Slurm; compare its weights.

Starts a throw-away Slurm. A tiny model is trained by DPO in one job of two nodes with two processes
each, with DeepSpeed ZeRO-2 and ZeRO-3: once in peace, and once while ten blows fall at random
steps:

    kill      kill -9 one of the four processes; the job fails and is submitted again
    preempt   a job of higher priority takes all nodes; Slurm requeues the training
    limit     the job reaches its time limit and requeues itself

A run is right when its weights are those of the run in peace to 1e-6, and each start went on from
the newest checkpoint that was complete when the blow fell, or a later one.

    python benchmarks/training_on_slurm.py
    python benchmarks/training_on_slurm.py --zero 3 --blows kill preempt kill

Prints a table. Exit code 1: weights differ or a checkpoint was lost. It says nothing of speed.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # started as a file
    sys.path.insert(0, str(ROOT))

from ccai_core import checkpoints  # noqa: E402
from ccai_core.dpo import train  # noqa: E402
from ccai_core.errors import JobError  # noqa: E402
from ccai_core.models import ModelRef, resolve_model  # noqa: E402
from ccai_core.training_config import TrainingConfig, TrainingResult  # noqa: E402
from ccai_core.training_data import read_pairs  # noqa: E402
from ccai_core.training_log import read_log  # noqa: E402
from infra.cluster import ClusterConfig, Limits  # noqa: E402
from infra.jobs import Job, Resources, submit  # noqa: E402
from tests.cluster.slurm_lab import SlurmLab, missing  # noqa: E402
from tests.tiny_model import save_tiny_model  # noqa: E402

_TENFOLD = (
    "kill", "preempt", "kill", "limit", "preempt", "kill", "preempt", "limit", "kill", "preempt",
)  # fmt: skip
_FRIENDS = (
    "calm",
    "patient",
    "gentle",
    "honest",
    "brave",
    "tired",
    "angry",
    "kind",
    "quiet",
    "open",
)


@dataclass
class Run:
    """One training on the lab, and what happened to it."""

    name: str
    lab: SlurmLab
    root: Path
    config: TrainingConfig
    model: ModelRef
    pairs: Path
    blows: list[str]
    dice: random.Random
    struck: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def out(self) -> Path:
        """Where the training's files are."""
        return self.root / self.name

    def go(self) -> TrainingResult:
        """Train to the end, submitting again what has failed, as a flow's retries do."""
        striker = threading.Thread(target=self._strike_all, daemon=True)
        striker.start()
        try:
            while True:
                try:
                    return self._submit().result(poll=0.2)
                except JobError as error:
                    print(f"    {error!s:.110}", flush=True)
        finally:
            self.over.set()
            striker.join()

    def _submit(self) -> Job[TrainingResult]:
        cluster = ClusterConfig(
            name="lab", kind="slurm", storage=self.root, partition="low", lease_seconds=60,
            minutes=30, cpus=1, memory_gb=2, limits=Limits(max_jobs=8),
        )  # fmt: skip
        return submit(
            train, self.config, self.model, self.pairs, self.out, "cpu",
            resources=Resources(nodes=2, tasks_per_node=2, checkpointable=True),
            cluster=cluster, key=self.name, folder=self.root / "jobs", role="train",
        )  # fmt: skip

    def _strike_all(self) -> None:
        while self.blows and not self.over.is_set():
            target = self._step() + self.dice.randint(3, 25)
            if not self._wait(functools.partial(self._is_at, target)):
                return
            kind, newest, at = self.blows[0], self._newest(), self._step()
            begun = self._last_start()
            {"kill": self._kill, "preempt": self._preempt, "limit": self._limit}[kind]()
            if not self._wait(functools.partial(self._has_begun, begun)):
                return
            _, went_on = self._last_start()
            self.struck.append(f"{kind} at {at}, on from {went_on}")
            self.blows.pop(0)
            if went_on < newest:
                self.lost.append(f"{kind}: went on from {went_on}, {newest} was complete")

    def _is_at(self, step: int) -> bool:
        return self._step() >= step and self._running()

    def _has_begun(self, before: tuple[str, int]) -> bool:
        return self._last_start() > before

    def _kill(self) -> None:
        ranks = []
        for process in psutil.process_iter(["environ"]):
            environment = process.info["environ"] or {}
            ours = environment.get("SLURM_JOB_NAME", "").startswith(self.name)
            if ours and "SLURM_PROCID" in environment and "submitit" in _words(process):
                ranks.append(process)
        self.dice.choice(ranks).kill()

    def _preempt(self) -> None:
        self.lab.run(
            "sbatch", "-p", "high", "-N4", "--exclusive", "-t2", "-o", "/dev/null",
            "--wrap", "sleep 8",
        )  # fmt: skip

    def _limit(self) -> None:
        # Of a running job only an administrator may change it; here we are that.
        self._set_limit(1)
        self._wait(lambda: not self._running(), seconds=150)
        # The start that follows would have no more than this minute either.
        self._set_limit(30)

    def _set_limit(self, minutes: int) -> None:
        for job in self.lab.jobs():
            self.lab.run("scontrol", "update", f"jobid={job}", f"TimeLimit={minutes}")

    def _running(self) -> bool:
        return bool(self.lab.run("squeue", "-h", "-t", "running", "-p", "low", "-o", "%i").split())

    def _log(self) -> list[dict[str, Any]]:
        file = self.out / "training_log.jsonl"
        return read_log(file) if file.exists() else []

    def _step(self) -> int:
        return max((int(line["step"]) for line in self._log()), default=0)

    def _last_start(self) -> tuple[str, int]:
        """Return when the newest start began to train, and at which step."""
        starts = [line for line in self._log() if line["event"] == "start"]
        return (starts[-1]["time"], starts[-1]["step"]) if starts else ("", 0)

    def _newest(self) -> int:
        layout = self.out / "checkpoints" / f"zero{self.config.zero}-4"
        return max((checkpoints.step_of(c) or 0 for c in checkpoints.sealed(layout)), default=0)

    def _wait(self, true: Callable[[], bool], seconds: float = 300) -> bool:
        until = time.monotonic() + seconds
        while not self.over.is_set() and time.monotonic() < until:
            if true():
                return True
            time.sleep(0.1)
        return False


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def main() -> int:
    """Train in peace and under blows; print what was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--zero", type=int, nargs="+", default=[2, 3], choices=[0, 1, 2, 3])
    parser.add_argument("--blows", nargs="*", default=list(_TENFOLD), choices=sorted(set(_TENFOLD)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=420, help="weight updates of a run")
    asked = parser.parse_args()
    if lacks := missing():
        sys.exit(lacks)
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"{'run':<10}{'updates':>8}{'blows':>7}{'largest difference':>20}  lost checkpoints")
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="slurm-training-") as folder, SlurmLab(nodes=4) as lab:
        os.environ.update(lab.environment)
        root = Path(folder).resolve()
        for zero in asked.zero:
            wrong += _compare(lab, root, zero, asked.blows, asked.steps, asked.seed)
    return min(1, wrong)


def _compare(lab: SlurmLab, root: Path, zero: int, blows: list[str], steps: int, seed: int) -> int:
    model, pairs = made(root)
    count = len(read_pairs(pairs))
    config = TrainingConfig(
        epochs=max(1, steps * 4 // count), batch_size=1, gradient_accumulation=4,
        learning_rate=1e-4, save_steps=5, validation_fraction=0, nodes=2, ranks=2, zero=zero,  # type: ignore[arg-type]
    )  # fmt: skip
    peace = Run(f"peace{zero}", lab, root, config, model, pairs, [], random.Random(seed))
    blown = Run(f"blown{zero}", lab, root, config, model, pairs, list(blows), random.Random(seed))
    expected, struck = peace.go(), blown.go()
    most = difference(expected.model_path, struck.model_path)
    unstruck = f"; not struck: {', '.join(blown.blows)}" if blown.blows else ""
    print(
        f"ZeRO-{zero:<5}{struck.steps:>8}{len(blown.struck):>7}{most:>20.1e}  "
        f"{len(blown.lost)} ({', '.join(blown.struck)}){unstruck}",
        flush=True,
    )
    for line in blown.lost:
        print(f"    {line}")
    return int(most > 1e-6) + len(blown.lost)


def made(root: Path) -> tuple[ModelRef, Path]:
    """Return a tiny model and 40 pairs, made once."""
    pairs, folder = root / "pairs.jsonl", root / "tiny"
    if not pairs.exists():
        rows = [
            {
                "prompt": [{"role": "user", "content": f"How should a {word} friend act? {n}"}],
                "chosen": [{"role": "assistant", "content": f"With care, as on day {n}, {word}."}],
                "rejected": [{"role": "assistant", "content": f"I do not know {n} of that."}],
                "principle": "care", "prompt_id": f"{word}{n}", "source": "made",
                "critique": "Curt.", "provenance": {},
            }
            for n in range(8)
            for word in _FRIENDS[n % 5 :: 2]
        ]  # fmt: skip
        corpus = [json.dumps(row) for row in rows]
        save_tiny_model(folder, corpus, vocabulary=400, spread=0.02)
        pairs.write_text("".join(f"{row}\n" for row in corpus))
    return resolve_model(str(folder)), pairs


def difference(one: Path, other: Path) -> float:
    """Return the largest difference between two models' weights."""
    from safetensors.torch import load_file

    first, second = (load_file(path / "model.safetensors") for path in (one, other))
    return max(float((first[name] - second[name]).abs().max()) for name in first)


if __name__ == "__main__":
    sys.exit(main())
