"""Start many flow runs at once on a Prefect with PostgreSQL: do all end, is each known?

Starts PostgreSQL, Prefect, MLflow and `flows.serve` as in production, and through the API, as the
UI does, so many runs of the deployment `prepare-data/default`: a small file of prompts, a job, an
MLflow run each, a workspace of its own. All of them are let in at once; `--local` of them work at a
time, the others wait for a slot, as processes that Prefect calls running.

    python benchmarks/services/many_runs.py
    python benchmarks/services/many_runs.py --runs 12 --local 2

Wants PostgreSQL (`apt-get install postgresql`) and `pip install psycopg2-binary`, and 250 MB of
memory for each run. Prints a table; exit code 1: a run did not complete, or something of it is not
known to Prefect or MLflow.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":  # started as a file
    sys.path.insert(0, str(ROOT))

from benchmarks.services.records import FINAL, Api, record_of  # noqa: E402
from flows.serve_config import ServeConfig  # noqa: E402
from infra.processes import job_processes  # noqa: E402
from tests.platform_lab import Platform, benchmarked  # noqa: E402

_LOOK_EVERY_S, _COUNT_EVERY_S = 2.0, 10.0
_THINGS = "anchors beetles candles engines feathers glaciers islands kettles lanterns".split()
_PLACES = "attics basements castles deserts".split()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--local", type=int, default=4, help="so many work at a time")
    parser.add_argument("--most", type=float, default=840.0, help="seconds before giving up")
    parser.add_argument("--folder", type=Path, help="kept; else a temporary one")
    given = parser.parse_args()
    serve = ServeConfig(runs=given.runs, at_once=given.runs, local=given.local)
    with benchmarked("many-runs", serve, given.folder) as (platform, folder):
        _, wrong = measure(platform, folder, given.runs, given.most)
    for line in wrong:
        print(f"WRONG: {line}")
    return int(bool(wrong))


def measure(
    platform: Platform, folder: Path, count: int, most: float = 840.0
) -> tuple[dict[str, str], list[str]]:
    """Start `count` flow runs, wait for their end; returns what was seen, and what is wrong."""
    api = Api(platform.prefect)
    deployment = api.wait_for_deployment("prepare-data", "default")
    source = folder / "prompts.jsonl"
    texts = [f"Where are {thing} of {place} kept?" for thing in _THINGS for place in _PLACES]
    rows = [json.dumps({"id": f"q{n}", "text": text}) for n, text in enumerate(texts)]
    source.write_text("\n".join(rows) + "\n", encoding="utf-8")

    def start(number: int) -> str:
        about = {"sources": [str(source)], "mix": {"target_size": 20}}
        values = {**about, "workspace": _ws(folder, number)}
        return api.start(deployment, {"config": values})

    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        runs = list(pool.map(start, range(count)))
    started_in = time.monotonic() - began
    peaks = {"running": 0, "processes": 0, "memory_gb": 0.0}
    next_count = 0.0
    while True:
        states = states_of(api, runs)
        peaks["running"] = max(peaks["running"], states["RUNNING"])
        if time.monotonic() > next_count:
            # Not cheap, and it is the same machine.
            next_count = time.monotonic() + _COUNT_EVERY_S
            processes, memory = _use(platform.folder)
            peaks["processes"] = max(peaks["processes"], processes)
            peaks["memory_gb"] = max(peaks["memory_gb"], memory)
        if sum(states[each] for each in FINAL) == count or time.monotonic() - began > most:
            break
        time.sleep(_LOOK_EVERY_S)
    took = time.monotonic() - began
    facts = {
        "flow runs started at once": f"{count}, in {started_in:.1f} s",
        "ended as": ", ".join(f"{n} {state}" for state, n in states.items()),
        "all ended after": f"{took:.0f} s",
        "most that Prefect called running at a time": str(peaks["running"]),
        "most processes of servers and flow runs, and their memory": (
            f"{peaks['processes']}, {peaks['memory_gb']:.1f} GB"
        ),
        "from start to the first second of work, median and last": _waits(api, runs),
        "connections of PostgreSQL at the end": _connections(platform),
    }
    for name, value in facts.items():
        print(f"| {name} | {value} |", flush=True)
    return facts, _wrong(platform, api, runs, folder)


def _ws(folder: Path, number: int) -> str:
    return str(folder / "runs" / str(number))


def states_of(api: Api, runs: list[str]) -> Counter[str]:
    """Return how many flow runs are in which state."""
    rows = api.everything("/flow_runs/filter", {"flow_runs": {"id": {"any_": runs}}})
    return Counter(str(row["state_type"]) for row in rows)


def _use(folder: Path) -> tuple[int, float]:
    shares = []
    for process in job_processes(str(folder)):
        try:
            shares.append(process.memory_full_info().pss)
        except psutil.Error:
            continue
    return len(shares), sum(shares) / 1e9


def _waits(api: Api, runs: list[str]) -> str:
    rows = api.everything("/flow_runs/filter", {"flow_runs": {"id": {"any_": runs}}})
    waits = sorted(
        (_when(row["start_time"]) - _when(row["created"])).total_seconds()
        for row in rows
        if row["start_time"]
    )
    return f"{waits[len(waits) // 2]:.0f} s, {waits[-1]:.0f} s" if waits else "none started"


def _when(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _connections(platform: Platform) -> str:
    sql = "select datname, count(*) from pg_stat_activity where datname is not null group by 1"
    return ", ".join(f"{name} {n}" for name, n in platform.postgres.query("prefect", sql))


def _wrong(platform: Platform, api: Api, runs: list[str], folder: Path) -> list[str]:
    """Say of every run what is not as it must be, on both servers and in the database itself."""
    found = []
    kinds: Counter[str] = Counter()
    for number, run in enumerate(runs):
        record = record_of(api, platform.mlflow, run, Path(_ws(folder, number)))
        if record.state != "COMPLETED":
            found.append(f"run {number} ended {record.state}")
        open_tasks = [text for text in record.things["tasks"] if not text.endswith(" COMPLETED")]
        found += [f"run {number}: task {text}" for text in open_tasks]
        if record.things["MLflow runs"]["flow FINISHED"] != 1:
            found.append(f"run {number}: MLflow has {dict(record.things['MLflow runs'])}")
        # Each did the same, so each has the same number of everything.
        kinds[_shape(record.things)] += 1
    if len(kinds) > 1:
        found.append(f"not all runs are known alike: {kinds.most_common(3)}")
    sql = "select state_type, count(*) from flow_run group by 1 order by 1"
    ended = {state: int(n) for state, n in platform.postgres.query("prefect", sql)}
    if ended.get("COMPLETED") != len(runs) or set(ended) - {"COMPLETED", "SCHEDULED"}:
        found.append(f"PostgreSQL has flow runs {ended}")
    taken = [
        f"{row['name']} {row['active_slots']}"
        for row in api.everything("/v2/concurrency_limits/filter", {})
        if row["active_slots"]
    ]
    found += [f"a slot is still taken: {each}" for each in taken]
    return found


def _shape(things: dict[str, Counter[str]]) -> str:
    counted: dict[str, Any] = {
        kind: found.total() for kind, found in things.items() if kind != "log lines"
    }
    return json.dumps(counted)


if __name__ == "__main__":
    sys.exit(main())
