"""Kept reference log-probabilities: shared, and checked before they are believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccai_core.errors import ArtifactError
from ccai_core.reference import ReferenceCache, pair_key

MODEL = {"model": "a@1", "precision": "fp32"}


def test_what_one_run_computed_another_one_finds(tmp_path: Path) -> None:
    first = ReferenceCache(tmp_path, MODEL)
    first.add("x", -1.5, -2.25)
    # Not closed: a run that was killed has no time for that.
    assert ReferenceCache(tmp_path, MODEL).get("x") == (-1.5, -2.25)


def test_another_model_or_precision_finds_nothing(tmp_path: Path) -> None:
    ReferenceCache(tmp_path, MODEL).add("x", -1.0, -2.0)
    assert ReferenceCache(tmp_path, {**MODEL, "precision": "bf16"}).get("x") is None
    assert ReferenceCache(tmp_path, {**MODEL, "model": "a@2"}).get("x") is None


def test_two_runs_at_once_write_beside_each_other(tmp_path: Path) -> None:
    one, other = ReferenceCache(tmp_path, MODEL), ReferenceCache(tmp_path, MODEL)
    one.add("x", -1.0, -2.0)
    other.add("y", -3.0, -4.0)
    one.read()
    assert one.get("y") == (-3.0, -4.0)
    assert len(ReferenceCache(tmp_path, MODEL)) == 2


def test_a_line_torn_by_a_kill_is_not_believed(tmp_path: Path) -> None:
    kept = ReferenceCache(tmp_path, MODEL)
    kept.add("x", -1.0, -2.0)
    (file,) = kept.folder.glob("*.jsonl")
    file.write_text(file.read_text() + '["y", -3.0, -4')
    again = ReferenceCache(tmp_path, MODEL)
    assert again.get("x") == (-1.0, -2.0)
    assert again.get("y") is None


def test_a_key_is_the_tokens_and_which_is_which() -> None:
    assert pair_key([1, 2], [3], [4]) == pair_key([1, 2], [3], [4])
    assert (
        len({pair_key([1, 2], [3], [4]), pair_key([1], [2, 3], [4]), pair_key([1, 2], [4], [3])})
        == 3
    )


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be made"):
        ReferenceCache(tmp_path / "file", MODEL)
