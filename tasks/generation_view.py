"""What people see of a generation that runs: a line, a table of servers, curves in MLflow.

view = GenerationView(progress, run, total=500)
view.look(read_progress(folder / "progress.json"), waits="")
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from infra.tracking import Run
from tasks.progress import Progress
from tasks.shown import show_table

_METRICS_EVERY_S, _TABLE_EVERY_S = 10.0, 60.0
_RATES = ("pairs", "calls", "tokens_in", "tokens_out")


class GenerationView:
    """Passes on what a generation's job says of itself, each thing as often as is useful."""

    def __init__(self, progress: Progress, run: Run, total: int) -> None:
        self._progress, self._run, self._total = progress, run, total
        self._next_metrics = self._next_table = 0.0
        self._seen: float | None = None

    def look(self, word: Mapping[str, Any] | None, waits: str) -> None:
        """Show the job's last word, if it has said any, and what it waits for."""
        if word is None:
            self._progress.update(0, self._total, waits)
            return
        seconds = word.get("seconds_left")
        left = f"about {timedelta(seconds=seconds)} left" if seconds else ""
        self._progress.update(
            int(word["done"]), int(word["total"]), *described(word), waits, left=left
        )
        if word["time"] == self._seen:
            return  # Nothing new was said.
        self._seen, now = word["time"], time.monotonic()
        if now >= self._next_metrics:
            self._next_metrics = now + _METRICS_EVERY_S
            self._run.metrics(measured(word), step=int(word["asked"]))
        if word.get("engine") and now >= self._next_table:
            self._next_table = now + _TABLE_EVERY_S
            _to_prefect(word["engine"])


def described(word: Mapping[str, Any]) -> list[str]:
    """Return how it goes, in few words; what is not known is left out."""
    said = [f"{word['calls']} calls"]
    if "calls_per_second" in word:
        said.append(f"{word['calls_per_second']:.1f} calls/s")
        read, written = word["tokens_in_per_second"], word["tokens_out_per_second"]
        said.append(f"{read:,.0f} tokens/s in, {written:,.0f} out")
    if engine := word.get("engine"):
        said += _of_servers(engine)
    return said


def _of_servers(engine: Mapping[str, Any]) -> list[str]:
    servers = engine["endpoints"]
    well = sum(each["state"] == "closed" for each in servers)
    said = [f"{engine['in_flight']} in flight on {well} of {len(servers)} servers"]
    if engine["cache_hit_rate"] is not None:
        said.append(f"{engine['cache_hit_rate']:.0%} of prompts cached")
    said += [f"{count} x {kind}" for kind, count in sorted(engine["errors"].items())]
    return said


def measured(word: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers that make curves."""
    found: dict[str, float] = {"pairs_so_far": word["done"], "calls_asked": word["asked"]}
    for name in _RATES:
        if f"{name}_per_second" in word:
            found[f"{name}_per_second"] = word[f"{name}_per_second"]
    if engine := word.get("engine"):
        found["in_flight"] = engine["in_flight"]
        found["servers"] = len(engine["endpoints"])
        found["failed_attempts"] = sum(engine["errors"].values())
        if engine["cache_hit_rate"] is not None:
            found["cache_hit_rate"] = engine["cache_hit_rate"]
    return found


def _to_prefect(engine: Mapping[str, Any]) -> None:
    errors = ", ".join(f"{count} x {kind}" for kind, count in sorted(engine["errors"].items()))
    show_table(
        list(engine["endpoints"]),
        key="endpoints",
        description=f"Servers that are asked. Failed attempts: {errors or 'none'}",
    )
