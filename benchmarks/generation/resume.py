"""Kill generation with -9 again and again: what is lost, doubled, asked twice; how soon it is back.

A driver makes a data set from a server that counts what it is asked. It is killed at random moments
and started again, and the result compared with that of a driver left alone. Then one is killed with
many calls in its journal, and timed until it asks as fast as ever.

    python benchmarks/generation/resume.py
    python benchmarks/generation/resume.py --kills 3 --pairs 1000 --records 0 --json resume.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
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
from benchmarks.generation.standin import Instant, prompts  # noqa: E402
from ccai_core.constitution import load_constitutional_config  # noqa: E402
from ccai_core.generation import PairRequest, generate_pairs  # noqa: E402
from ccai_core.journal import Journal, Recorded  # noqa: E402
from ccai_core.journal_lines import read_lines  # noqa: E402
from ccai_core.models import resolve_model  # noqa: E402
from ccai_core.preferences import PreferenceConfig, make_pairs  # noqa: E402
from ccai_core.training_data import read_pairs  # noqa: E402
from ccai_core.types import Call, Completion  # noqa: E402

_PLACES, _DELAY_MS = 128, 250.0
_EVERY_S, _FULL = 0.25, 0.95
_REPLAY_S, _WATCH_S = 900.0, 45.0


class FullError(Exception):
    """There are as many calls in the journal as were wanted."""


class Filling(Instant):
    """Answers at once, as the model that the driver asks, until there is enough."""

    def __init__(self, model: str, wanted: int) -> None:
        super().__init__()
        self.model, self._left = model, wanted

    async def generate(self, call: Call) -> Completion:
        """Answer a call."""
        self._left -= 1
        if self._left < 0:
            raise FullError
        return await super().generate(call)


async def fill(folder: Path, wanted: int, pairs: int) -> None:
    """Write the journal of a driver that was killed after so many calls."""
    asked = request_for(folder, pairs)
    with Journal.open(folder / "calls.jsonl") as journal, contextlib.suppress(FullError):
        recorded = Recorded(Filling(asked.model.identity, wanted), journal)
        await make_pairs(recorded, asked.prompts, asked.constitution, asked.config, pairs)


def request_for(folder: Path, pairs: int) -> PairRequest:
    return PairRequest(
        model=resolve_model(str(folder.parent / "model")),
        constitution=load_constitutional_config(),
        prompts=tuple(prompts(4000)),
        max_pairs=pairs,
        config=PreferenceConfig(max_passes=100),
    )


def work(folder: Path, url: str, pairs: int, places: int) -> None:
    """Be the driver: make (or go on with) the data set in `folder`."""
    request = request_for(folder, pairs)
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
        ended_well(start(whole, url, pairs))
    in_flight = made = 0
    with started_server(_DELAY_MS) as url:
        for _ in range(kills):
            driver = start(killed, url, pairs)
            # So many calls later, and at any moment of those.
            until = counts(url)["calls"] + dice.uniform(0, 1.5 * len(records(whole)) / kills)
            while counts(url)["calls"] < until and driver.poll() is None:
                time.sleep(0.02)
            time.sleep(dice.uniform(0, _DELAY_MS / 1000))
            made += driver.poll() is None
            driver.kill()
            driver.wait()
            in_flight += counts(url)["different"] - len(set(records(killed)))
        ended_well(start(killed, url, pairs))
        asked = counts(url)
    written = records(killed)
    whole_pairs, pairs_again = pair_calls(whole), pair_calls(killed)
    return {
        "kills": made,
        "pairs": len(pairs_again),
        "calls": asked["different"],
        "calls_asked_twice": asked["calls"] - asked["different"],
        "calls_in_flight_at_kills": in_flight,
        "calls_recorded_twice": len(written) - len(set(written)),
        "pairs_lost": len(set(whole_pairs) - set(pairs_again)),
        "pairs_doubled": len(pairs_again) - len(set(pairs_again)),
        "same_bytes": data(whole) == data(killed),
    }


def pair_calls(folder: Path) -> list[str]:
    """Return which call each pair of a data set is from."""
    return [pair.provenance["revision_call"] for pair in read_pairs(folder / "pairs")]


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
    asyncio.run(fill(folder, wanted, pairs))
    began = time.monotonic()
    with Journal.open(folder / "calls.jsonl") as journal:
        known = len(journal)
    opened = time.monotonic() - began
    with started_server(_DELAY_MS) as url:
        began = time.monotonic()
        driver = start(folder, url, pairs)
        asked = [(0.0, 0)]
        first = began + _REPLAY_S
        while driver.poll() is None and time.monotonic() < first + _WATCH_S:
            time.sleep(_EVERY_S)
            asked.append((time.monotonic() - began, counts(url)["calls"]))
            if asked[-1][1] and not asked[-2][1]:
                first = time.monotonic()
        driver.kill()
        driver.wait()
    rates = [(t, (n - m) / (t - s)) for (s, m), (t, n) in zip(asked[:-4], asked[4:], strict=True)]
    full = statistics.median(rate for t, rate in rates if t > asked[-1][0] - _WATCH_S / 2)
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
