"""A release loads in engines that know nothing of this project, and writes there what it should.

transformers is always here. The others are tried where their Python is named:
CCAI_TEST_VLLM_PYTHON, CCAI_TEST_LLAMACPP_PYTHON and CCAI_TEST_LLAMACPP_CONVERTER; what they must
have is in docs/release.md.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ccai_core.models import resolve_model
from ccai_core.release.checksums import write_checksums
from ccai_core.release.smoke import Smoke
from flows.release import main
from tests.tiny_model import save_tiny_model

VLLM = os.environ.get("CCAI_TEST_VLLM_PYTHON", "")
LLAMA = os.environ.get("CCAI_TEST_LLAMACPP_PYTHON", "")
CONVERTER = os.environ.get("CCAI_TEST_LLAMACPP_CONVERTER", "")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    folder = save_tiny_model(tmp_path / "tiny")
    write_checksums(folder)
    return folder


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """Real weights: converters know the tokenizers of real models only."""
    folder = tmp_path / "real"
    shutil.copytree(resolve_model("embedded").path, folder)
    write_checksums(folder)
    return folder


def test_plain_transformers_loads_it_and_answers(tiny, capsys):
    assert main(["smoke", str(tiny), "--tokens", "4"]) == 0
    assert "transformers" in capsys.readouterr().out


def test_what_cannot_be_tried_says_what_to_name(tiny, capsys):
    assert main(["smoke", str(tiny), "--engine", "llamacpp", "--python", "no/such/python"]) == 2
    assert "--converter: name convert_hf_to_gguf.py" in capsys.readouterr().err
    (tiny / "config.json").write_text("{}", encoding="utf-8")
    assert main(["smoke", str(tiny)]) == 2
    assert "config.json: was changed" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not VLLM, reason="CCAI_TEST_VLLM_PYTHON names no Python with vLLM")
def test_vllm_writes_what_transformers_finds_likely(real, capsys):
    assert main(["smoke", str(real), "--engine", "vllm", "--python", VLLM]) == 0
    assert "vllm" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(
    not (LLAMA and CONVERTER), reason="no Python with xllamacpp, and no converter, is named"
)
def test_converted_for_llama_cpp_it_writes_what_transformers_finds_likely(real, capsys):
    words = ["--engine", "llamacpp", "--python", LLAMA, "--converter", CONVERTER]
    assert main(["smoke", str(real), *words]) == 0
    assert "llamacpp" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({}, 0, "11 characters are as transformers writes them"),
        ({"first": 9, "text": "zzz"}, 1, "transformers does not find likely"),
        ({"ids": (1, 2, 3)}, 1, "other tokens than transformers"),
    ],
)
def test_what_another_engine_writes_is_held_against_transformers(
    tiny, capsys, monkeypatch, changed, code, said
):
    reference = Smoke(
        version="5", prompt="Hi", ids=(1, 2), first=3, likely=(3, 4), text="Hello there"
    )
    other = reference.model_copy(update={"likely": (), **changed})
    answers = {"transformers": reference, "vllm": other}
    monkeypatch.setattr("flows.release_steps.ask", lambda engine, *_: answers[engine])
    assert main(["smoke", str(tiny), "--engine", "vllm"]) == code
    assert said in capsys.readouterr().out
