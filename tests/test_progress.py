"""A job's progress file: whole at any moment, not too often, first and last words always."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccai_core.progress import ProgressFile, read_progress


def test_first_and_last_words_are_written_and_the_rest_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "progress.json"
    writes = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda s, t: (writes.append(t), replace(s, t))[1])
    progress = ProgressFile(path)
    for done in range(1001):
        progress.write("answers", done, 1000, model="baseline")
    assert 2 <= len(writes) < 20
    word = read_progress(path)
    assert word is not None
    assert (word["stage"], word["done"], word["total"]) == ("answers", 1000, 1000)
    assert word["model"] == "baseline"
    progress.write("judging", 0, 10)
    assert (read_progress(path) or {})["stage"] == "judging"
    assert [f.name for f in path.parent.iterdir()] == ["progress.json"]


def test_nothing_readable_is_none(tmp_path: Path) -> None:
    assert read_progress(tmp_path / "none.json") is None
    for text in ("", '{"stage": "a', "[1]"):
        (tmp_path / "p.json").write_text(text)
        assert read_progress(tmp_path / "p.json") is None
