"""What people see of a running generation: in words, in numbers, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from tasks import generation_view
from tasks.generation_view import GenerationView, described, measured
from tests.test_generation_watch import STATUS

WORD = {
    "stage": "pairs", "done": 120, "total": 500, "time": 5.0, "calls": 700, "asked": 650,
    "replayed": 50, "tokens_in": 1, "tokens_out": 1, "pairs_per_second": 1.25,
    "calls_per_second": 7.04, "tokens_in_per_second": 2512.4, "tokens_out_per_second": 611.2,
    "seconds_left": 3725, "engine": STATUS.model_dump(mode="json"),
}  # fmt: skip


class Seen:
    """Stands for progress, run and Prefect: keeps what each is told."""

    def __init__(self) -> None:
        self.updates: list[tuple[Any, ...]] = []
        self.curves: list[tuple[dict[str, float], int]] = []
        self.tables: list[dict[str, Any]] = []

    def update(self, done: int, total: int, *details: str, left: str = "") -> None:
        self.updates.append((done, total, [each for each in details if each], left))

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.curves.append((values, step))

    def table(self, rows: list[dict[str, Any]], **more: Any) -> None:
        self.tables.append({"rows": rows, **more})


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    made = Seen()
    monkeypatch.setattr(generation_view, "show_table", made.table)
    return made


def test_it_says_in_few_words_how_it_goes() -> None:
    assert described(WORD) == [
        "700 calls", "7.0 calls/s", "2,512 tokens/s in, 611 out", "3 in flight on 1 of 1 servers",
        "50% of prompts cached", "2 x timeout",
    ]  # fmt: skip
    early = {key: WORD[key] for key in ("done", "total", "calls", "asked", "time")}
    assert described(early) == ["700 calls"]


def test_the_numbers_make_curves() -> None:
    assert measured(WORD) == {
        "pairs_so_far": 120, "calls_asked": 650, "pairs_per_second": 1.25,
        "calls_per_second": 7.04, "tokens_in_per_second": 2512.4,
        "tokens_out_per_second": 611.2, "in_flight": 3, "servers": 1, "failed_attempts": 2,
        "cache_hit_rate": 0.5,
    }  # fmt: skip


def test_a_word_is_shown_at_each_look_and_reported_now_and_then(seen: Seen) -> None:
    view = GenerationView(seen, seen, 500)  # type: ignore[arg-type]
    view.look(None, "fleet: 8 queued")
    view.look(WORD, "")
    view.look({**WORD, "done": 121, "time": 6.0}, "")
    assert seen.updates[0] == (0, 500, ["fleet: 8 queued"], "")
    assert seen.updates[1][::3] == (120, "about 1:02:05 left")
    assert seen.updates[2][0] == 121
    assert [step for _, step in seen.curves] == [650]
    assert [table["key"] for table in seen.tables] == ["endpoints"]
    assert seen.tables[0]["rows"] == WORD["engine"]["endpoints"]
    assert "2 x timeout" in seen.tables[0]["description"]


def test_the_same_word_again_is_no_news_for_curves(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation_view, "_METRICS_EVERY_S", 0.0)
    view = GenerationView(seen, seen, 500)  # type: ignore[arg-type]
    for at in (5.0, 5.0, 6.0):
        view.look({**WORD, "time": at}, "")
    assert len(seen.curves) == 2
