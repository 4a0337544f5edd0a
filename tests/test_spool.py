"""Rows on the disk: they come back, in any order, and what went wrong is said."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path

import pytest

from ccai_core.errors import ArtifactError
from ccai_core.spool import InTurn, Picked, Spool
from ccai_core.types import Message, user


def filled(texts: list[str], folder: Path | None = None) -> Spool[Message]:
    spool = Spool(Message, folder)
    for text in texts:
        spool.append(user(text))
    return spool


@pytest.mark.parametrize("size", [1, 200_000])
def test_rows_come_back_in_any_order_also_between_appends(size: int, tmp_path: Path) -> None:
    """The larger ones are more than is kept in memory."""
    texts = [f"{n} é\n" * size for n in range(12)]
    spool = filled(texts[:6], tmp_path)
    assert spool[3].content == texts[3]
    for text in texts[6:]:
        spool.append(user(text))
        assert spool[0].content == texts[0]
    assert len(spool) == 12
    assert spool[-1].content == texts[-1]
    assert [row.content for row in spool] == texts
    assert [row.content for row in spool[8:2:-2]] == texts[8:2:-2]
    with pytest.raises(IndexError):
        spool[12]


def test_nothing_is_left_in_the_folder_though_its_process_is_killed(tmp_path: Path) -> None:
    spool = filled(["long " * 400_000] * 4, tmp_path)
    assert list(tmp_path.iterdir()) == []  # Its file has no name.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del spool
        gc.collect()


def test_equal_rows_are_equal_wherever_they_are() -> None:
    spool = filled(["a", "b", "c", "d"])
    assert spool == filled(["a", "b", "c", "d"])
    assert spool != filled(["a", "b", "c"])
    assert list(Picked(spool, [3, 1])) == [user("d"), user("b")]
    assert Picked(spool, [3, 1, 0])[1:] == [user("b"), user("a")]


def test_lists_are_read_in_turn_as_far_as_asked() -> None:
    both = InTurn([filled(["a", "b", "c"]), filled(["x", "y", "z"])], 5)
    assert [row.content for row in both] == list("axbyc")
    assert [row.content for row in both[1:4]] == list("xby")
    assert both[-1] == user("c")
    with pytest.raises(IndexError):
        both[5]
    assert list(InTurn([], 0)) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    spool = Spool(Message, tmp_path / "gone")
    spool.append(user("few are kept in memory"))
    with pytest.raises(ArtifactError, match=r"gone: cannot be written .*in the journal"):
        spool.append(user("x" * (5 << 20)))
