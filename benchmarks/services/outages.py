"""Stop MLflow, Prefect and PostgreSQL for two minutes each during a run; is anything missing after?

Starts PostgreSQL, Prefect, MLflow and `flows.serve` as in production, lets one proof of concept run
undisturbed (a tiny model with random weights: the way is real, the text is garbage), and then one
for each outage:

    middle    the server is away while pairs are generated
    end       it is away from the evaluation on: the run ends while it is away

Afterwards what MLflow and Prefect know of the run is compared with what they know of the
undisturbed one: runs, params, metrics with their steps and values, tags, datasets, artifacts; state
of the flow run and its tasks, its artifacts and its log.

    python benchmarks/services/outages.py
    python benchmarks/services/outages.py --only prefect --when end --seconds 20

Wants PostgreSQL (`apt-get install postgresql`) and `pip install psycopg2-binary`. Prints a table;
exit code 1: a run did not complete, or something is missing.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":  # started as a file
    sys.path.insert(0, str(ROOT))

from benchmarks.services.records import FINAL, Api, Record, differences, record_of  # noqa: E402
from flows.serve_config import ServeConfig  # noqa: E402
from tests.flows.tiny_flow import TINY, write_settings  # noqa: E402
from tests.platform_lab import Platform, benchmarked  # noqa: E402

_SERVERS = ("mlflow", "prefect", "postgres")
_WHENS = ("middle", "end")
_SIGNS = {"middle": "journal/calls.jsonl", "end": "jobs/evaluation-*"}
_TOO_LONG_S, _SENT_S = 1200.0, 60.0


@dataclass
class Outcome:
    """One row of the table."""

    what: str
    state: str
    seconds: float
    missing: list[str]
    outlasted: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=_SERVERS, action="append")
    parser.add_argument("--when", choices=_WHENS, action="append")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long each is away")
    parser.add_argument("--pairs", type=int, default=6, help="how long a run takes")
    parser.add_argument("--folder", type=Path, help="kept; else a temporary one")
    given = parser.parse_args()
    with benchmarked("outages", ServeConfig(), given.folder) as (platform, folder):
        lab = Lab(platform, folder, given.pairs, given.seconds)
        outcomes = lab.all(given.only or _SERVERS, given.when or _WHENS)
    _print(outcomes, given.seconds)
    return int(any(each.state != "COMPLETED" or each.missing for each in outcomes))


class Lab:
    """Runs on one platform, each in a workspace of its own."""

    def __init__(self, platform: Platform, folder: Path, pairs: int, seconds: float) -> None:
        self.platform, self.folder, self.seconds = platform, folder, seconds
        self.api = Api(platform.prefect)
        (folder / "model").mkdir(parents=True, exist_ok=True)
        generation = {**TINY["preferences"]["generation"], "batch_size": 1}
        self.values = write_settings(
            folder / "model",
            max_pairs=pairs,
            preferences={**TINY["preferences"], "generation": generation},
        )

    def all(self, servers: Any, whens: Any) -> list[Outcome]:
        """Run undisturbed, then once for each outage."""
        began = time.monotonic()
        whole = self._record("undisturbed", self._start("undisturbed"))
        took = time.monotonic() - began
        outcomes = [Outcome("undisturbed", whole.state, took, [], True)]
        print(f"undisturbed: {whole.state} after {took:.0f} s", flush=True)
        for server in servers:
            for when in whens:
                outcomes.append(self._disturbed(server, when, whole))
                print(outcomes[-1], flush=True)
        return outcomes

    def _disturbed(self, server: str, when: str, whole: Record) -> Outcome:
        name = f"{server}, {when}"
        workspace = f"{server}-{when}"
        began = time.monotonic()
        run = self._start(workspace)
        self._wait(lambda: any((self.folder / workspace).glob(_SIGNS[when])))
        self.platform.stop(server)
        stopped = time.monotonic()
        time.sleep(self.seconds)
        done = (self.folder / workspace / "report.html").exists()
        self.platform.start(server)
        print(f"{name}: away for {time.monotonic() - stopped:.0f} s", flush=True)
        found = self._record(workspace, run)
        took = time.monotonic() - began
        # What was kept is sent within a minute of the server's return.
        until = time.monotonic() + _SENT_S
        while (lacks := differences(whole, found)) and time.monotonic() < until:
            time.sleep(2)
            found = self._record(workspace, run)
        return Outcome(name, found.state, took, lacks, not done)

    def _start(self, workspace: str) -> str:
        deployment = self.api.wait_for_deployment("poc", "quick")
        values = {**self.values, "workspace": str(self.folder / workspace)}
        return self.api.start(deployment, {"config": values})

    def _record(self, workspace: str, run: str) -> Record:
        self._wait(lambda: self.api.state(run) in FINAL)
        return record_of(self.api, self.platform.mlflow, run, self.folder / workspace)

    def _wait(self, condition: Any) -> None:
        until = time.monotonic() + _TOO_LONG_S
        while not condition():
            if time.monotonic() > until:
                raise TimeoutError(f"nothing after {_TOO_LONG_S:.0f} s; see {self.folder}")
            time.sleep(0.5)


def _print(outcomes: list[Outcome], seconds: float) -> None:
    print(f"\n| away for {seconds:.0f} s | state | took | went on after it | missing |")
    print("|---|---|---|---|---|")
    for each in outcomes:
        left = "yes" if each.outlasted else "no"
        lacks = "; ".join(each.missing) or "nothing"
        print(f"| {each.what} | {each.state} | {each.seconds:.0f} s | {left} | {lacks} |")


if __name__ == "__main__":
    sys.exit(main())
