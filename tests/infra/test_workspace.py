from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ccai_core.errors import ArtifactError
from infra.workspace import Workspace

HOLDER = """
import sys, time
from pathlib import Path
from infra.workspace import Workspace
with Workspace(Path(sys.argv[1]), need_gb=0).lock():
    print("held", flush=True)
    time.sleep(600)
"""


def hold(root: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_it_makes_its_folders(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "runs" / "poc", need_gb=0)
    made = {"artifacts", "journal", "jobs", "fleets"}
    assert {each.name for each in workspace.root.iterdir()} == made
    assert workspace.jobs == workspace.root / "jobs"
    assert Workspace(tmp_path / "runs" / "poc", need_gb=0).root == workspace.root


def test_two_spellings_are_one_workspace(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "real").mkdir()
    assert Workspace(tmp_path / "link", need_gb=0).root == tmp_path / "real"


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ArtifactError, match=r"taken cannot be used as a workspace: .*Choose"):
        Workspace(tmp_path / "taken")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(ArtifactError, match="Permission denied"):
        Workspace(tmp_path / "new")


def test_a_read_only_file_system_is_refused() -> None:
    with pytest.raises(ArtifactError, match="cannot be used as a workspace"):
        Workspace(Path("/proc/ccai"))


def test_too_little_space_is_said_with_numbers(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"\d+\.\d GB free, 9999999\.0 GB needed\. Remove"):
        Workspace(tmp_path, need_gb=9_999_999)


def test_a_second_process_is_refused_at_once_and_told_who_holds_it(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    workspace = Workspace(tmp_path, need_gb=0)
    began = time.monotonic()
    expected = rf"in use by process {holder.pid} on {socket.gethostname()} since \d{{4}}-"
    with pytest.raises(ArtifactError, match=expected), workspace.lock():
        pytest.fail("entered a workspace that is held")
    assert time.monotonic() - began < 1
    holder.kill()
    holder.communicate()
    assert (tmp_path / ".lock.json").exists()
    with workspace.lock():
        assert f'"pid": {os.getpid()}' in (tmp_path / ".lock.json").read_text()


def test_the_same_process_cannot_hold_it_twice_but_can_hold_another(tmp_path: Path) -> None:
    first, other = (Workspace(tmp_path / name, need_gb=0) for name in ("first", "other"))
    with first.lock(), other.lock():
        again = Workspace(tmp_path / "first", need_gb=0)
        with pytest.raises(ArtifactError, match=f"process {os.getpid()}"), again.lock():
            pytest.fail("entered twice")
    with first.lock():
        pass


def test_the_lock_is_freed_when_the_flow_fails(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, need_gb=0)
    with pytest.raises(ZeroDivisionError), workspace.lock():
        _ = 1 / 0
    with workspace.lock():
        pass
