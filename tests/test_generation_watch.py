"""What a generation says of itself while it runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ccai_core import generation_watch
from ccai_core.engine_status import EndpointHealth, EngineStatus
from ccai_core.generation_watch import GenerationWatch, Pace
from ccai_core.journal import Journal, Recorded
from ccai_core.progress import ProgressFile, read_progress
from ccai_core.types import Call, Completion, Sampling, user

STATUS = EngineStatus(
    in_flight=3, waiting=1, retried=2, errors={"timeout": 2}, cache_hit_rate=0.5,
    endpoints=(
        EndpointHealth(
            name="0", state="closed", in_flight=3, limit=8, answered=9, failed=2,
            tokens_per_second=80.0,
        ),
    ),
)  # fmt: skip


class Engine:
    model = "m@1"

    async def generate(self, call: Call) -> Completion:
        return Completion(
            text="said", finish_reason="stop", prompt_tokens=10, completion_tokens=4, model="m@1"
        )

    async def status(self) -> EngineStatus:
        return STATUS


def test_a_pace_is_that_of_the_last_two_minutes() -> None:
    now = [0.0]
    pace = Pace(120.0, lambda: now[0])
    assert pace.rates(pairs=0, calls=0) == {}
    for second in range(1, 400):
        now[0] = float(second)
        done = min(second, 200)  # One a second, and none after 200.
        rates = pace.rates(pairs=done, calls=2 * done)
        if second == 100:
            assert rates == {"pairs": 1.0, "calls": 2.0}
        if second == 260:
            assert rates["pairs"] == pytest.approx(0.5, abs=0.02)
    assert rates == {"pairs": 0.0, "calls": 0.0}


def test_it_tells_tokens_rates_and_how_the_servers_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("ccai_core.progress._AT_MOST_EVERY_S", 0.0)
    monkeypatch.setattr(generation_watch, "Pace", lambda: Pace(120.0, lambda: now[0]))
    path = tmp_path / "progress.json"

    async def main() -> dict[str, Any]:
        with Journal.open(tmp_path / "calls.jsonl") as journal:
            recorded = Recorded(Engine(), journal)
            watch = GenerationWatch(ProgressFile(path), recorded, 40)
            async with watch.following():
                watch.report(0, 40, 0)
                for text in ("a", "b", "a"):
                    call = Call(messages=(user(text),), sampling=Sampling())
                    await recorded.generate(call)
                now[0] += 2
                watch.report(10, 40, 3)
            assert len(asyncio.all_tasks()) == 1
        return read_progress(path) or {}

    word = asyncio.run(main())
    assert (word["done"], word["total"], word["calls"]) == (10, 40, 3)
    assert (word["asked"], word["replayed"]) == (2, 1)
    assert (word["tokens_in"], word["tokens_out"]) == (20, 8)
    assert (word["pairs_per_second"], word["calls_per_second"]) == (5.0, 1.0)
    assert (word["tokens_in_per_second"], word["tokens_out_per_second"]) == (10.0, 4.0)
    assert word["seconds_left"] == 6
    assert word["engine"] == STATUS.model_dump(mode="json")


def test_a_model_in_this_process_has_no_servers_to_tell_of(tmp_path: Path) -> None:
    class Silent(Engine):
        status = None

    async def main() -> dict[str, Any]:
        with Journal.open(tmp_path / "calls.jsonl") as journal:
            progress = ProgressFile(tmp_path / "progress.json")
            watch = GenerationWatch(progress, Recorded(Silent(), journal), 40)
            async with watch.following():
                await asyncio.sleep(0)
        return read_progress(tmp_path / "progress.json") or {}

    word = asyncio.run(main())
    assert word["done"] == 0
    assert "engine" not in word
