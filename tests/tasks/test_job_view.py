"""What is passed on of a job's log."""

from __future__ import annotations

from pathlib import Path

from tasks.job_view import _Tail


def test_only_whole_lines_are_passed_on_and_each_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tail = _Tail(log)
    assert list(tail.new()) == []
    log.write_text("one\ntw")
    assert list(tail.new()) == ["one"]
    with log.open("a") as file:
        file.write("o\n\nthree\n")
    assert list(tail.new()) == ["two", "three"]
    assert list(tail.new()) == []


def test_what_an_earlier_driver_has_seen_is_not_repeated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\n")
    tail = _Tail(log)
    with log.open("a") as file:
        file.write("new\n")
    assert list(tail.new()) == ["new"]


def test_a_line_without_end_does_not_stop_the_reading(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 200_000 + b"\nlast\n")
    tail = _Tail(log)
    # Nothing was there when the view was made.
    tail._at = 0
    read = [line for _ in range(5) for line in tail.new()]
    assert read[-1] == "last"
    assert max(map(len, read)) <= 500
