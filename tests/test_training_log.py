"""The log of a training run: appended, torn, cut by a resumed run, and followed by a driver."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from ccai_core.errors import DataError
from ccai_core.training_curve import describe, draw
from ccai_core.training_log import LogReader, TrainingLog, read_log


def steps(log: TrainingLog, first: int, last: int, loss: float = 0.5) -> None:
    for step in range(first, last + 1):
        log.write("step", step, 10, step / 10, loss=loss, margin=0.1 * step, accuracy=1.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = TrainingLog(tmp_path / "log.jsonl")
    log.write("start", 0, 10, 0.0, model="m@1")
    log.write("eval", 0, 10, 0.0, loss=0.693, margin=0.0, accuracy=0.0)
    steps(log, 1, 6)
    return tmp_path / "log.jsonl"


def numbers(entries: list[dict[str, object]]) -> list[object]:
    return [entry["step"] for entry in entries if entry["event"] == "step"]


def test_every_line_is_json_with_the_promised_keys(path: Path) -> None:
    for line in path.read_text().splitlines():
        assert {"event", "step", "total_steps", "epoch", "time"} <= set(json.loads(line))


def test_a_new_run_starts_an_empty_log(path: Path) -> None:
    TrainingLog(path)
    assert read_log(path) == []


def test_resuming_removes_later_steps_and_an_early_end(path: Path) -> None:
    TrainingLog(path, after_step=6).write("end", 6, 10, 0.6)
    log = TrainingLog(path, after_step=4)
    log.write("start", 4, 10, 0.4, resumed_from=4)
    steps(log, 5, 7)
    entries = read_log(path)
    assert numbers(entries) == [1, 2, 3, 4, 5, 6, 7]
    assert [e["event"] for e in entries].count("end") == 0
    assert [e["step"] for e in entries if e["event"] == "start"] == [0, 4]


def test_the_end_of_the_step_resumed_from_is_removed_too(path: Path) -> None:
    TrainingLog(path, after_step=6).write("end", 6, 6, 1.0)
    TrainingLog(path, after_step=6)
    assert read_log(path)[-1]["event"] == "step"


def test_a_torn_last_line_is_left_out_and_cut_when_resumed(path: Path) -> None:
    whole = read_log(path)
    with path.open("ab") as file:
        file.write(b'{"event": "step", "step": 7, "lo')
    assert read_log(path) == whole
    steps(TrainingLog(path, after_step=6), 7, 7)
    assert numbers(read_log(path)) == [1, 2, 3, 4, 5, 6, 7]


def test_damage_before_the_last_line_is_an_error_that_names_it(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = b"\x00\x00\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(DataError, match="line 3"):
        read_log(path)


def test_a_missing_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_log(tmp_path / "none.jsonl")


def test_numbers_json_cannot_hold_become_null(path: Path) -> None:
    TrainingLog(path, after_step=6).write("step", 7, 10, 0.7, loss=math.nan, grad_norm=math.inf)
    last = read_log(path)[-1]
    assert (last["loss"], last["grad_norm"]) == (None, None)


def test_the_reader_gives_every_line_once(path: Path) -> None:
    reader = LogReader(path)
    assert numbers(reader.new()) == [1, 2, 3, 4, 5, 6]
    assert reader.new() == []
    steps(TrainingLog(path, after_step=6), 7, 8)
    assert numbers(reader.new()) == [7, 8]


def test_the_reader_waits_for_the_file_and_for_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    reader = LogReader(path)
    assert reader.new() == []
    path.write_bytes(b'{"event": "step", "st')
    assert reader.new() == []
    with path.open("ab") as file:
        file.write(b'ep": 1}\n')
    assert numbers(reader.new()) == [1]


@pytest.mark.parametrize("poll_between", [True, False])
def test_the_reader_follows_a_resumed_run(path: Path, poll_between: bool) -> None:
    reader = LogReader(path)
    reader.new()
    log = TrainingLog(path, after_step=3)
    if poll_between:
        assert reader.new() == []
    log.write("start", 3, 10, 0.3, resumed_from=3)
    # Longer than before, so that the file's size alone does not tell that it was cut.
    steps(log, 4, 10, loss=0.123456789)
    new = reader.new()
    assert new[0]["event"] == "start"
    assert numbers(new) == [4, 5, 6, 7, 8, 9, 10]


def test_the_reader_follows_a_run_that_starts_over(path: Path) -> None:
    reader = LogReader(path)
    reader.new()
    log = TrainingLog(path)
    log.write("start", 0, 10, 0.0)
    steps(log, 1, 2)
    assert numbers(reader.new()) == [1, 2]


def test_the_curve_is_an_svg_that_says_what_it_shows(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "curve.svg"
    draw(read_log(path), target)
    root = ET.fromstring(target.read_text())
    space = "{http://www.w3.org/2000/svg}"
    words = " ".join(text for text in root.itertext() if text.strip())
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "curve-title curve-description"
    assert root.findtext(f"{space}title") == "DPO training curve"
    assert "margin 0.1 to 0.6" in (root.findtext(f"{space}desc") or "")
    for label in ("DPO loss (nats)", "Step (weight updates)", "training", "validation"):
        assert label in words


def test_the_same_log_gives_the_same_picture(path: Path, tmp_path: Path) -> None:
    draw(read_log(path), tmp_path / "a.svg")
    draw(read_log(path), tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_curve_without_steps_or_numbers_is_drawn_all_the_same(tmp_path: Path) -> None:
    draw([], tmp_path / "empty.svg")
    assert "No steps" in describe([])
    broken = [{"event": "step", "step": 1, "loss": None}]
    draw(broken, tmp_path / "null.svg")
    assert "unknown" in describe(broken)
