"""Models of strangers: nothing in their folder is run, no pickle and no code that they bring."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from ccai_core.errors import ModelError
from ccai_core.models import load_model, resolve_model
from tests.tiny_model import save_tiny_model


class _Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny_model(tmp_path / "model")
    return tmp_path / "model"


def test_weights_as_a_pickle_are_refused_unopened(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(tmp_path / "sprung")))
    with pytest.raises(ModelError):
        load_model(resolve_model(str(folder)), "cpu")
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_beside_whole_weights_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(tmp_path / "sprung")))
    load_model(resolve_model(str(folder)), "cpu")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_a_model_brings_is_not_run(folder: Path, tmp_path: Path, file: str) -> None:
    mark = tmp_path / "sprung"
    (folder / "theirs.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    said = json.loads((folder / file).read_text("utf-8"))
    said["auto_map"] = {
        "AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model",
        "AutoTokenizer": ["theirs.Slow", "theirs.Fast"],
    }  # fmt: skip
    if file == "config.json":
        said["model_type"] = "theirs"
    (folder / file).write_text(json.dumps(said))
    with contextlib.suppress(ModelError):  # refused is as good as ignored
        load_model(resolve_model(str(folder)), "cpu")
    assert not mark.exists()
