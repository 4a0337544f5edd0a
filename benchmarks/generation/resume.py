"""Kill generation with -9 again and again: what is lost, doubled, asked twice; how soon it is back.

A driver makes a data set from a server that counts what it is asked. It is killed at random moments
and started again, and the result compared with that of a driver left alone. Then one is killed with
many calls in its journal, and timed until it asks as fast as ever.

    python benchmarks/generation/resume.py
    python benchmarks/generation/resume.py --kills 3 --pairs 1000 --records 0 --json resume.json
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.generation.served import Served, started_server, tiny_model  # noqa: E402
from benchmarks.generation.standin import prompts  # noqa: E402
from ccai_core.constitution import load_constitutional_config  # noqa: E402
from ccai_core.generation import PairRequest, generate_pairs  # noqa: E402
from ccai_core.journal import Journal  # noqa: E402
from ccai_core.journal_lines import read_lines  # noqa: E402
from ccai_core.models import resolve_model  # noqa: E402
from ccai_core.preferences import PreferenceConfig  # noqa: E402

_PLACES, _DELAY_MS = 128, 250.0
_EVERY_S, _FULL = 0.25, 0.95


def work(folder: Path, url: str, pairs: int, places: int) -> None:
    """Be the driver: make (or go on with) the data set in `folder`."""
    request = PairRequest(
        model=resolve_model(str(folder.parent / "model")),
        constitution=load_constitutional_config(),
        prompts=tuple(prompts(4000)),
        max_pairs=pairs,
        config=PreferenceConfig(max_passes=100),
    )
    generate_pairs(request, folder / "pairs", folder / "calls.jsonl", Served((url,), places))


def start(folder: Path, url: str, pairs: int, places: int = _PLACES) -> subprocess.Popen[bytes]:
    words = [f"--work={folder}", f"--url={url}", f"--pairs={pairs}", f"--places={places}"]
    return subprocess.Popen(  # noqa: S603 - our own words
        [sys.executable, __file__, *words], stdout=subprocess.DEVNULL
    )


def ended_well(driver: subprocess.Popen[bytes]) -> None:
    if driver.wait() != 0:
        raise SystemExit(f"The driver failed with {driver.returncode}.")


def counts(url: str) -> dict[str, int]:
    """Ask the server how many calls it got, and how many different ones."""
    with urllib.request.urlopen(f"{url}/counts") as answer:  # noqa: S310 - our own server
        found: dict[str, int] = json.load(answer)
    return found


def records(folder: Path) -> list[str]:
    """Return the keys of the calls on the disk; a torn last line is none."""
    path = folder / "calls.jsonl"
    return [found[0] for _, found in read_lines(path) if found] if path.exists() else []


def struck(place: Path, kills: int, pairs: int, seed: int) -> dict[str, Any]:
    """Kill a driver `kills` times and compare what it makes with one left alone."""
    whole, killed, dice = place / "whole", place / "killed", random.Random(seed)
    with started_server(_DELAY_MS) as url:
        began = time.monotonic()
        ended_well(start(whole, url, pairs))
        alone = time.monotonic() - began
    in_flight = left = 0
    with started_server(_DELAY_MS) as url:
        for _ in range(kills):
            driver = start(killed, url, pairs)
            try:
                driver.wait(dice.uniform(1, max(3.0, 2 * alone / kills)))
            except subprocess.TimeoutExpired:
                driver.kill()
                driver.wait()
                left += 1
            in_flight += counts(url)["different"] - len(set(records(killed)))
        ended_well(start(killed, url, pairs))
        asked = counts(url)
    written = records(killed)
    return {
        "kills": left,
        "seconds_left_alone": round(alone, 1),
        "pairs": json.loads((killed / "pairs" / "funnel.json").read_text())["pairs"],
        "calls": asked["different"],
        "calls_asked_twice": asked["calls"] - asked["different"],
        "calls_in_flight_at_kills": in_flight,
        "recorded_twice": len(written) - len(set(written)),
        "lost": len(set(records(whole)) - set(written)),
        "same_bytes": data(whole) == data(killed),
    }


def data(folder: Path) -> dict[str, bytes]:
    """Return the files of a data set."""
    files = (folder / "pairs").rglob("*")
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in files
        if file.is_file() and file.name != "progress.json"
    }


def back(place: Path, wanted: int, pairs: int) -> dict[str, Any]:
    """Time a driver from its start, with `wanted` calls in its journal, to its full speed."""
    folder = place / "large"
    with started_server() as url:
        driver = start(folder, url, pairs)
        while counts(url)["calls"] < wanted and driver.poll() is None:
            time.sleep(0.1)
        driver.kill()
        driver.wait()
    began = time.monotonic()
    with Journal.open(folder / "calls.jsonl") as journal:
        known = len(journal)
    opened = time.monotonic() - began
    with started_server(_DELAY_MS) as url:
        began = time.monotonic()
        driver = start(folder, url, pairs)
        asked = [(0.0, 0)]
        while driver.poll() is None and len(asked) < 90 / _EVERY_S:
            time.sleep(_EVERY_S)
            asked.append((time.monotonic() - began, counts(url)["calls"]))
        driver.kill()
        driver.wait()
    rates = [(t, (n - m) / (t - s)) for (s, m), (t, n) in zip(asked[:-4], asked[4:], strict=True)]
    full = statistics.median(rate for t, rate in rates if t > asked[-1][0] - 30)
    return {
        "records": known,
        "journal_opened_in_seconds": round(opened, 2),
        "first_call_after_seconds": round(next(t for t, n in asked if n), 1),
        "full_calls_per_second": round(full),
        "full_speed_after_seconds": round(next(t for t, rate in rates if rate >= _FULL * full), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=6000, help="pairs of the runs that are killed")
    parser.add_argument("--records", type=int, default=100_000, help="calls in the large journal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the numbers there")
    for name, kind in (("--work", Path), ("--url", str), ("--places", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        work(chosen.work, chosen.url, chosen.pairs, chosen.places)
        return 0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        tiny_model(place / "model")
        found = struck(place, chosen.kills, chosen.pairs, chosen.seed) if chosen.kills else {}
        if chosen.records:
            found |= back(place, chosen.records, 10 * chosen.records)
    for title, value in found.items():
        print(f"{title.replace('_', ' '):28} {value}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
