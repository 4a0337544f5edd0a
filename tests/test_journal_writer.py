"""Group commit: order kept, one write for many, errors told to all whom they concern."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import wait

import pytest

from ccai_core.journal_lines import Record
from ccai_core.journal_writer import GroupWriter
from ccai_core.types import Completion

RECORD = Completion(text="said", finish_reason="stop")


class Kept:
    """What would be in the file, write by write."""

    def __init__(self) -> None:
        self.writes: list[list[str]] = []
        self.error: Exception | None = None
        self.may_write = threading.Event()
        self.may_write.set()

    def append(self, records: Sequence[tuple[str, Record]]) -> None:
        assert self.may_write.wait(5)
        if self.error:
            raise self.error
        self.writes.append([key for key, _ in records])


def test_records_of_many_threads_are_all_written_and_each_threads_in_its_order() -> None:
    kept = Kept()
    writer = GroupWriter(kept.append, gather_seconds=0.001)

    def put(name: str) -> None:
        for n in range(200):
            writer.put(f"{name}{n:03}", RECORD)
            if n % 20 == 0:
                time.sleep(0.001)

    threads = [threading.Thread(target=put, args=(name,)) for name in "abcd"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    writer.close()
    keys = [key for write in kept.writes for key in write]
    assert len(keys) == 800
    for name in "abcd":
        assert [key for key in keys if key[0] == name] == [f"{name}{n:03}" for n in range(200)]


def test_what_comes_while_the_disk_is_slow_is_written_together() -> None:
    kept = Kept()
    writer = GroupWriter(kept.append, gather_seconds=0.0)
    kept.may_write.clear()
    first = writer.put("first", RECORD)
    time.sleep(0.05)
    rest = [writer.put(f"k{n}", RECORD) for n in range(100)]
    assert not first.done()
    kept.may_write.set()
    wait([first, *rest], timeout=5)
    assert kept.writes == [["first"], [f"k{n}" for n in range(100)]]
    writer.close()


def test_an_error_is_told_to_all_that_were_written_with_it_and_to_no_other() -> None:
    kept = Kept()
    writer = GroupWriter(kept.append, gather_seconds=0.02)
    kept.error = OSError("no space")
    lost = [writer.put("a", RECORD), writer.put("b", RECORD)]
    for each in lost:
        with pytest.raises(OSError, match="no space"):
            each.result(5)
    kept.error = None
    writer.put("c", RECORD).result(5)
    assert kept.writes == [["c"]]
    writer.close()


def test_closing_writes_what_is_left_without_waiting_for_more() -> None:
    kept = Kept()
    writer = GroupWriter(kept.append, gather_seconds=60)
    writer.put("a", RECORD)
    began = time.monotonic()
    writer.close()
    assert time.monotonic() - began < 5
    assert kept.writes == [["a"]]
    with pytest.raises(RuntimeError):
        writer.put("b", RECORD)
