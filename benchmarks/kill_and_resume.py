"""Kill the proof of concept again and again, let it go on, and compare with a run left alone.

    python benchmarks/kill_and_resume.py --kills 10 --whole runs/whole --killed runs/killed
    python benchmarks/kill_and_resume.py --kills 10 -- --preset quick --model embedded

Options after `--` go to `python -m flows.poc`. A workspace in which `--whole` has been made before
is used as it is. Half of the kills take the driver alone, half its jobs too. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ccai_core.training_data import read_pairs  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--most-seconds", type=float, default=60, help="longest time before a kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", type=Path, default=Path("runs/whole"))
    parser.add_argument("--killed", type=Path, default=Path("runs/killed"))
    parser.add_argument("options", nargs="*", default=["--preset", "quick", "--model", "embedded"])
    asked = parser.parse_args()
    seconds = {"whole": finish(asked.whole, asked.options)}
    dice = random.Random(asked.seed)
    began = time.monotonic()
    rows = [kill(asked, dice, number) for number in range(1, asked.kills + 1)]
    seconds["killed"] = finish(asked.killed, asked.options) + time.monotonic() - began
    for number, after, what, lines in rows:
        print(f"kill {number:2}: after {after:5.1f} s, {what:<15} {lines:5} calls in the journal")
    return compare(asked.whole, asked.killed, seconds)


def start(workspace: Path, options: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flows.poc", *options, "--workspace", str(workspace)]
    workspace.mkdir(parents=True, exist_ok=True)
    with (workspace / "benchmark.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own command, no shell
            command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )


def finish(workspace: Path, options: list[str]) -> float:
    began = time.monotonic()
    if (code := start(workspace.resolve(), options).wait()) != 0:
        raise SystemExit(f"exit code {code}; see {workspace / 'benchmark.log'}")
    return time.monotonic() - began


def kill(
    asked: argparse.Namespace, dice: random.Random, number: int
) -> tuple[int, float, str, int]:
    workspace = asked.killed.resolve()
    driver = start(workspace, asked.options)
    after = dice.uniform(5, asked.most_seconds)
    time.sleep(after)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    jobs_too = number % 2 == 0
    if jobs_too:
        for process in psutil.process_iter():
            if job_of(process).startswith(str(workspace)):
                process.kill()
    return number, after, "driver and jobs" if jobs_too else "driver alone", len(keys(workspace))


def job_of(process: psutil.Process) -> str:
    try:
        return str(process.environ().get("CCAI_JOB", ""))
    except (psutil.Error, OSError):
        return ""


def keys(workspace: Path) -> list[str]:
    """Return the key of every whole line of the journal of calls."""
    path = workspace / "journal" / "calls.jsonl"
    if not path.exists():
        return []
    lines = [line for line in path.read_bytes().split(b"\n")[:-1] if line]
    return [json.loads(line[line.index(b"[") :])[1] for line in lines]


def pairs(workspace: Path) -> Path:
    (folder,) = (workspace / "artifacts").glob("pairs-*")
    return folder


def rows(workspace: Path) -> dict[str, bytes]:
    files = pairs(workspace).glob("data/*.parquet")
    return {file.name: file.read_bytes() for file in files}


def compare(whole: Path, killed: Path, seconds: dict[str, float]) -> int:
    again = {key: n for key, n in Counter(keys(killed)).items() if n > 1}
    same = rows(whole) == rows(killed)
    table = {
        "seconds": (round(seconds["whole"]), round(seconds["killed"])),
        "pairs": (len(read_pairs(pairs(whole))), len(read_pairs(pairs(killed)))),
        "calls in the journal": (len(keys(whole)), len(keys(killed))),
        "calls recorded more than once": ("", len(again)),
    }
    print(f"| {'':<30} | left alone | killed |")
    for name, (left_alone, was_killed) in table.items():
        print(f"| {name:<30} | {left_alone:>10} | {was_killed:>6} |")
    print(f"The data set is {'the same, byte for byte' if same else 'DIFFERENT'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
