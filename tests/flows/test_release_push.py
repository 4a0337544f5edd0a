"""An upload over a real socket: what a dry run lists is what arrives, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ccai_core.release.checksums import write_checksums
from tests.flows.hub_standin import Hub, hub

ROOT = Path(__file__).parents[2]
TOKEN = "hf_of-the-tests"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    (folder / "configs").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# tiny\n", encoding="utf-8")
    (folder / "configs" / "recipe.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(os.urandom(300_000))
    write_checksums(folder)
    return folder


def push(server: Hub, release: Path, *options: str, token: str = TOKEN) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "flows.release", "push", str(release), "--to", "me/tiny", *options],
        # The storage behind xet is another service; without it the hub takes files by LFS.
        env=os.environ | {"HF_ENDPOINT": server.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_what_a_dry_run_lists_is_what_arrives(release):
    with hub(TOKEN) as server:
        code, told = push(server, release, "--dry-run")
        assert (code, server.asked) == (0, [])
        code, _ = push(server, release)
    assert code == 0
    files = {str(f.relative_to(release)): f for f in release.rglob("*") if f.is_file()}
    assert {name: file.read_bytes() for name, file in files.items()} == server.files
    for name, file in files.items():
        assert f"  {name}  {file.stat().st_size:,} bytes" in told
    assert (server.repository, server.private) == ("me/tiny", True)


@pytest.mark.slow
def test_what_is_refused_leaves_nothing_behind(release):
    with hub(TOKEN) as server:
        code, told = push(server, release, token="hf_wrong")
        assert code == 2
        assert "HF_TOKEN" in told
        assert "hf_wrong" not in told
        (release / "model.safetensors").write_bytes(b"changed")
        code, told = push(server, release)
        assert code == 2
        assert "model.safetensors: was changed" in told
    assert server.files == {}
