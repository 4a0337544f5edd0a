"""The driver of a round: a fleet that is asked questions, a job that counts, a map of small jobs.

An ordinary script over `infra`, to be killed at any moment and started again with the same words;
it goes on where it was. A job that was lost, cancelled or preempted is submitted again, as the
platform's tasks do. What came out goes to results.json in its folder.

    python -m benchmarks.chaos_driver FOLDER --partition low
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from benchmarks.chaos_work import ITEMS, MODEL, STEPS, count_up, questions, weigh
from ccai_core.errors import CCAIError, JobError, JobRefusedError
from ccai_core.files import write_whole
from ccai_core.journal import Journal, Recorded
from ccai_core.types import Call, Completion
from infra.client import ChatMessage, ChatRequest, Client
from infra.cluster import ClusterConfig, Limits
from infra.engines import ServeSpec
from infra.fleet import Fleet, FleetPlan
from infra.jobs import Resources, submit, submit_map

T = TypeVar("T")

logger = logging.getLogger("chaos")

LEASE_S = 30.0
INSTANCES = 3
_TRIES = 5


class FleetEngine:
    """`Generate` over a client, so that the platform's own journal can stand before it."""

    model = MODEL

    def __init__(self, client: Client) -> None:
        self._client = client

    async def generate(self, call: Call) -> Completion:
        """Answer one call."""
        answer = await self._client.chat(
            ChatRequest(
                messages=tuple(
                    ChatMessage(role=each.role, content=each.content) for each in call.messages
                ),
                max_tokens=call.sampling.max_new_tokens,
                temperature=call.sampling.temperature,
                seed=call.sampling.seed,
            ),
            affinity=call.episode,
        )
        if answer.finish_reason == "error":
            logger.warning("A call failed: %s", answer.reason)
        return Completion(
            text=answer.text,
            finish_reason=answer.finish_reason,
            model=MODEL,
            endpoint=answer.endpoint,
        )


def profile(folder: Path, partition: str) -> ClusterConfig:
    """Return the profile of the lab."""
    return ClusterConfig(
        name="chaos", kind="slurm", storage=folder, partition=partition, lease_seconds=LEASE_S,
        minutes=10, cpus=1, memory_gb=0.4, limits=Limits(max_jobs=20),
    )  # fmt: skip


def fleet_plan(folder: Path) -> FleetPlan:
    """Return a fleet of light engines."""
    serve = ServeSpec(
        engine="vllm", model="some/model", served_name=MODEL, max_parallel=3,
        executable=str(folder / "bin" / "vllm"),
    )  # fmt: skip
    return FleetPlan(
        name="chaos", serve=serve, instances=INSTANCES, min_instances=2, cpus=2, ready_minutes=2
    )


async def ask_all(fleet: Fleet, journal: Journal, calls: list[Call]) -> list[Completion]:
    """Ask everything that the journal has no answer to."""
    async with Client(fleet.endpoints, fleet.key) as client:
        engine = Recorded(FleetEngine(client), journal)
        answers = await asyncio.gather(*(engine.generate(call) for call in calls))
        logger.info("%d answers asked for, %d replayed.", engine.asked, engine.replayed)
    return answers


def insist(what: str, get: Callable[[], T]) -> T:
    """Return what `get` gets, again where a job did not come through."""
    for left in reversed(range(_TRIES)):
        try:
            return get()
        except JobError as error:
            if isinstance(error, JobRefusedError) or not left:
                raise
            logger.warning("%s: %s %s", what, type(error).__name__, str(error).splitlines()[0])
            time.sleep(2)
    raise AssertionError


def main() -> int:
    """Do all of it; 0 when everything is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--partition", default="low")
    parser.add_argument("--calls", type=int, default=150)
    asked = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel("WARNING")
    folder = asked.folder.resolve()
    cluster, jobs = profile(folder, asked.partition), folder / "jobs"

    def count() -> int:
        resources = Resources(checkpointable=True)
        return submit(
            count_up, folder, STEPS, resources=resources, cluster=cluster, key="count", folder=jobs
        ).result()

    def weigh_all() -> list[str]:
        items = [(folder, number) for number in range(ITEMS)]
        submitted = submit_map(
            weigh, items, resources=Resources(), cluster=cluster, key="weigh", folder=jobs
        )
        return [job.result() for job in submitted]

    with (
        Journal.open(folder / "journal" / "calls.jsonl") as journal,
        Fleet(fleet_plan(folder), cluster, folder / "fleets" / "chaos", jobs) as fleet,
        ThreadPoolExecutor() as pool,
    ):
        counted = pool.submit(insist, "count", count)
        weighed = pool.submit(insist, "weigh", weigh_all)
        answers = asyncio.run(ask_all(fleet, journal, questions(asked.calls)))
        results = {
            "answers": [each.text for each in answers],
            "counted": counted.result(),
            "weighed": weighed.result(),
        }
    write_whole(folder / "results.json", json.dumps(results))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CCAIError as error:
        logger.error("%s: %s", type(error).__name__, error)
        sys.exit(2)
