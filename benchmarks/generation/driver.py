"""What the driver itself costs: calls a second on one core, and memory, with servers that are free.

Makes preference pairs with everything that a real run has (episodes, filters, journal with synced
writes), against answers that come at once: in this process, and through the client over HTTP from a
server in another process. "of a core" counts the CPU time of the driver's process alone, with all
its threads, so another busy process on the machine does not change it.

    python benchmarks/generation/driver.py --calls 10000 100000
    python benchmarks/generation/driver.py --calls 1000000 --only process --json driver.json
    python benchmarks/generation/driver.py --calls 20000 --only http --profile
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import pstats
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from cProfile import Profile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.generation.served import Served, started_server, tiny_model  # noqa: E402
from benchmarks.generation.standin import Instant, memory_mb, prompts  # noqa: E402
from ccai_core.constitution import load_constitutional_config  # noqa: E402
from ccai_core.journal import Journal, Recorded  # noqa: E402
from ccai_core.preferences import PreferenceConfig, make_pairs  # noqa: E402
from ccai_core.types import Generate  # noqa: E402

_CALLS_A_PAIR, _KEPT = 9 / 4, 0.72


@contextlib.asynccontextmanager
async def over_http(folder: Path, places: int) -> AsyncIterator[Generate]:
    """Give the engine that flows use, with a server in another process behind it."""
    model = tiny_model(folder / "model")
    with started_server() as url:
        async with Served((url,), places)(model) as engine:
            yield engine


@contextlib.asynccontextmanager
async def in_process(folder: Path, places: int) -> AsyncIterator[Generate]:
    yield Instant(places)


ENGINES = {"process": in_process, "http": over_http}
COLUMNS = {
    "engine": "engine ",
    "calls": "    calls",
    "pairs": "   pairs",
    "calls_per_second": "calls/s",
    "calls_per_core_second": "of a core",
    "memory_before_mb": "MB before",
    "memory_most_mb": "MB most",
    "journal_mb": "journal MB",
    "journal_open_seconds": "opened in s",
}


async def measure(how: str, calls: int, places: int, profiler: Profile | None) -> dict[str, Any]:
    """Make as many pairs as take about `calls` calls, and say what it cost."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with ENGINES[how](folder, places) as engine:
            made = await make(engine, folder, max(4, int(calls / _CALLS_A_PAIR * _KEPT)), profiler)
        began = time.perf_counter()
        with Journal.open(folder / "calls.jsonl") as journal:
            records = len(journal)
        opened = round(time.perf_counter() - began, 2)
        size = round((folder / "calls.jsonl").stat().st_size / 1e6)
    more = {"journal_mb": size, "records": records, "journal_open_seconds": opened}
    return {"engine": how, **made, **more}


async def make(
    engine: Generate, folder: Path, pairs: int, profiler: Profile | None
) -> dict[str, Any]:
    """Make pairs with a journal in `folder`, and watch time and memory."""
    asked, constitution = prompts(4000), load_constitutional_config()
    config = PreferenceConfig(max_passes=100)
    before = most = memory_mb()
    with Journal.open(folder / "calls.jsonl") as journal, profiler or contextlib.nullcontext():
        recorded = Recorded(engine, journal)

        def look(*_: int) -> None:
            nonlocal most
            if recorded.asked % 500 < 20:
                most = max(most, memory_mb())

        began, cpu = time.perf_counter(), time.process_time()
        made = await make_pairs(recorded, asked, constitution, config, pairs, look, folder=folder)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "calls": recorded.asked,
        "pairs": made.funnel.pairs,
        "seconds": round(seconds, 1),
        "calls_per_second": round(recorded.asked / seconds),
        "calls_per_core_second": round(recorded.asked / cpu),
        "memory_before_mb": round(before),
        "memory_most_mb": round(max(most, memory_mb())),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--only", choices=sorted(ENGINES), help="one of the two; default: both")
    parser.add_argument("--places", type=int, default=512, help="calls the server takes at once")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    chosen = parser.parse_args()
    rows = []
    print("  ".join(f"{title:>{len(title)}}" for title in COLUMNS.values()))
    for how in [chosen.only] if chosen.only else sorted(ENGINES):
        for calls in chosen.calls:
            profiler = Profile() if chosen.profile else None
            row = asyncio.run(measure(how, calls, chosen.places, profiler))
            rows.append(row)
            print("  ".join(f"{row[n]:>{len(title)}}" for n, title in COLUMNS.items()), flush=True)
            if profiler:
                pstats.Stats(profiler).sort_stats("tottime").print_stats(35)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
