"""What a killed compilation leaves behind holds up nobody."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ccai_core import deepspeed_build

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed on this platform")


class Builder:
    def __init__(self, seen: list[list[Path]], root: Path) -> None:
        self._seen, self._root = seen, root

    def is_compatible(self, verbose: bool) -> bool:
        return True

    def load(self) -> None:
        self._seen.append(list(self._root.rglob("lock")))


def test_a_dead_process_s_lock_is_removed_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import deepspeed.accelerator

    seen: list[list[Path]] = []
    accelerator = SimpleNamespace(create_op_builder=lambda name: Builder(seen, tmp_path))
    monkeypatch.setattr(deepspeed.accelerator, "get_accelerator", lambda: accelerator)
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path))
    # Set and taken away, so that it is as it was afterwards.
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "")
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    deepspeed_build.build(deepspeed_build.COMMUNICATION)
    (folder,) = (tmp_path / "torch_extensions").iterdir()
    (folder / "deepspeed_shm_comm").mkdir()
    (folder / "deepspeed_shm_comm" / "lock").touch()
    deepspeed_build.build(deepspeed_build.COMMUNICATION)
    assert seen == [[], []]


def test_a_folder_of_the_user_s_is_left_to_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    deepspeed_build.build(deepspeed_build.COMMUNICATION)
    assert [each.name for each in tmp_path.iterdir()] == ["lock"]
