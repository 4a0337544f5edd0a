"""The documentation's commands do what the pages say, when a reader types them in order.

In `make test` the reader has a finished proof of concept of a tiny model, which also stands for
the embedded one: blocks run as they stand, or plan what they would do. `make test-all` runs the
long ones whole, on real weights. See `tests/pages.py` for how a block says which it is.
"""

from __future__ import annotations

import json
import logging
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ccai_core import datasets, embedded
from tests.pages import (
    PAGES,
    ROOT,
    SHELL,
    Block,
    blocks,
    environment_of,
    page_id,
    save_titled_blocks,
)  # fmt: skip

_WITH_COMMANDS = [page for page in PAGES if any(b.mark != "not run" for b in blocks(page, *SHELL))]
_LONG = [page for page in PAGES if any(b.mark == "long" for b in blocks(page, *SHELL))]


@pytest.fixture(scope="module")
def desk(finished, tmp_path_factory):
    """The folder where a reader works, with what the pages speak of."""
    folder = tmp_path_factory.mktemp("reader")
    save_titled_blocks(folder)
    for name in ("poc", "scaling"):
        shutil.copytree(finished.workspace, folder / "runs" / name)
        # The run's own: other tests may have made more of the same kinds there.
        for made in (folder / "runs" / name / "artifacts").iterdir():
            if made.name not in {each.name for each in finished.artifacts}:
                shutil.rmtree(made)
    (pairs,) = folder.glob("runs/poc/artifacts/pairs-*")
    ways = ["export", str(pairs), "--format", "jsonl", "--to", str(folder / "mine.jsonl")]
    assert datasets.main(ways) == 0
    for name in ("models/mine", "my/model", "my/judge", "my/other", "my/third"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(finished.values["model"])
    prompts = [f'{{"prompt": "How do I tell a friend that plan {n} failed?"}}' for n in range(40)]
    (folder / "my_prompts.jsonl").write_text("\n".join(prompts) + "\n")
    (folder / "other.csv").write_text("prompt\nHow do I rest well after a long day?\n")
    answers = [
        {"prompt": f"Why {n}?", "model": model, "answer": f"{model} {n}", "held_out": True}
        for n in range(40)
        for model in ("base", "tuned")
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(each) + "\n" for each in answers))
    return folder


@pytest.fixture
def reader(desk, finished, server, monkeypatch):
    """The same, with the tiny model in the place of the embedded one."""
    monkeypatch.chdir(desk)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("CCAI_CACHE", str(desk / "cache"))
    place = desk / "cache" / "models"
    if not place.exists():
        place.mkdir(parents=True)
        (place / f"SmolLM2-135M-Instruct-{_revision()}").symlink_to(finished.values["model"])
    handlers = {
        name: logging.getLogger(name).handlers[:] for name in ("ccai_core", "infra", "tasks")
    }
    yield desk
    for name, before in handlers.items():
        logging.getLogger(name).handlers[:] = before


def _revision() -> str:
    return f"gguf-{embedded.sha256(embedded._gguf_file())[:12]}"


def words_of(command: list[str], folder: Path) -> list[str]:
    """Put real names for those that the pages invent, as the shell does for patterns."""
    found = []
    for word in command:
        for kind in ("pairs", "training", "evaluation", "prompts"):
            for invented in ("3f2a", "77c0", "12ab"):
                if f"{kind}-{invented}" in word:
                    real = sorted((folder / "runs/poc/artifacts").glob(f"{kind}-*"))
                    word = word.replace(f"{kind}-{invented}", real[0].name)
        matches = sorted(map(str, Path().glob(word))) if "*" in word else []
        found += matches or [word]
    return found


def execute(block: Block, folder: Path, monkeypatch, *, planned: bool) -> None:
    for command in block.commands:
        if variables := environment_of(command):
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            continue
        assert command[:2] == ["python", "-m"], f"{block}: {shlex.join(command)}: mark it"
        module, *arguments = words_of(command[2:], folder)
        if planned and module.startswith("flows.") and "--dry-run" not in arguments:
            arguments.append("--dry-run")
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code or 0
        else:
            code = 0
        assert code == 0, f"{block}: {shlex.join(command)}: exit code {code}"


@pytest.mark.parametrize("page", _WITH_COMMANDS, ids=page_id)
def test_a_pages_commands_are_executed(page, reader, monkeypatch):
    for block in blocks(page, *SHELL):
        if block.mark != "not run":
            execute(block, reader, monkeypatch, planned=block.mark in ("planned", "long"))


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.timeout(3600)
def test_the_long_ones_are_executed_on_real_weights(server, tmp_path, monkeypatch):
    save_titled_blocks(tmp_path)
    monkeypatch.chdir(tmp_path)
    # The quick start makes what the other pages speak of.
    for page in sorted(_LONG, key=lambda page: page.name != "quickstart.md"):
        for block in blocks(page, *SHELL):
            for command in block.commands if block.mark == "long" else []:
                if environment_of(command):
                    continue
                words = words_of(command, tmp_path)
                done = subprocess.run(
                    [sys.executable, *words[1:]],
                    env=os.environ | {"PREFECT_API_URL": server, "PYTHONPATH": str(ROOT)},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, f"{block}: {shlex.join(words)}: {done.stderr[-2000:]}"
