"""What is removed from a workspace after a PoC, and what never is."""

from __future__ import annotations

import os
import shutil
import time

import pytest
from filelock import FileLock

from infra.artifacts import Artifact
from infra.cluster import ClusterConfig
from infra.gc import main
from infra.gc_plan import survey
from infra.jobs import Resources, submit
from infra.registry import Registry
from tests.infra import job_functions as functions

LONG_AGO = time.time() - 100 * 86_400
STRAY = "training-0123456789abcdef"


@pytest.fixture
def workspace(finished, tmp_path, monkeypatch):
    """A PoC's workspace of long ago, with a training that nothing refers to."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = shutil.copytree(finished.workspace, tmp_path / "ws")
    stray = Artifact(root / "artifacts", "training", "0123456789abcdef")
    (stray / "model").mkdir()
    (stray / "model" / "model.safetensors").write_bytes(bytes(3_000_000))
    stray.finish({}, parents=(only(root, "pairs").name,))
    age(root)
    return root


def age(root):
    for each in (root, *root.rglob("*")):
        os.utime(each, (LONG_AGO, LONG_AGO))


def only(root, kind):
    folders = [each for each in (root / "artifacts").glob(f"{kind}-*") if each.name != STRAY]
    (found,) = folders
    return found


def removable(root, **options):
    uri = f"sqlite:///{root / 'mlflow.db'}" if (root / "mlflow.db").exists() else None
    found = survey(root, uri, options.pop("older_than_days", 14), **options)
    return {str(item.path.relative_to(root)) for item in found.removable}


def stray(root):
    return root / "artifacts" / STRAY


def test_what_the_report_rests_on_stays_and_the_stray_training_goes(workspace, capsys):
    report = (workspace / "report.html").read_bytes()
    assert main(["--workspace", str(workspace), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "3.0 MB" in said
    assert "nothing was removed" in said
    assert stray(workspace).exists()

    assert main(["--workspace", str(workspace)]) == 0
    assert not stray(workspace).exists()
    for kind in ("pairs", "training", "evaluation"):
        artifact = only(workspace, kind)
        assert Artifact(workspace / "artifacts", *artifact.name.rsplit("-", 1)).is_complete()
    # Nothing goes on from a checkpoint of a training that is through.
    assert not (only(workspace, "training") / "checkpoints").exists()
    assert (workspace / "journal" / "calls.jsonl").exists()
    assert (workspace / "report.html").read_bytes() == report
    assert not list(workspace.rglob(".removed-*"))
    assert main(["--workspace", str(workspace)]) == 0
    assert "nobody needs 0 kB" in capsys.readouterr().out


def test_a_registered_model_stays_with_all_that_it_was_made_from(workspace):
    (workspace / "report.html").unlink()
    gone = removable(workspace)
    assert f"artifacts/{only(workspace, 'pairs').name}" in gone
    registry = Registry(f"sqlite:///{workspace / 'mlflow.db'}", "ccai")
    registry.register(stray(workspace) / "model", "ccai@1", {})
    gone = removable(workspace)
    assert f"artifacts/{stray(workspace).name}" not in gone
    assert f"artifacts/{only(workspace, 'pairs').name}" not in gone
    assert f"artifacts/{only(workspace, 'training').name}" in gone


def test_a_registry_that_does_not_answer_stops_it(workspace, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["--workspace", str(workspace)]) == 2
    assert "does not answer" in capsys.readouterr().err
    assert stray(workspace).exists()


def test_nothing_goes_while_a_flow_holds_the_workspace(workspace, capsys):
    with FileLock(workspace / ".lock"):
        assert main(["--workspace", str(workspace), "--dry-run"]) == 0
        assert "a flow holds the workspace" in capsys.readouterr().out
        assert main(["--workspace", str(workspace)]) == 2
    assert "in use by a flow" in capsys.readouterr().err
    assert stray(workspace).exists()


def test_nothing_goes_while_a_job_runs(workspace, capsys):
    cluster = ClusterConfig(name="test", kind="local", lease_seconds=20)
    job = submit(
        functions.note_and_wait, workspace / "notes", workspace / "gate",
        resources=Resources(), cluster=cluster, key="work",
        folder=workspace / "jobs",
    )  # fmt: skip
    try:
        assert main(["--workspace", str(workspace)]) == 2
    finally:
        job.cancel()
    assert "is in use (work: its job" in capsys.readouterr().err
    assert stray(workspace).exists()


def test_new_and_half_made_things_stay_and_so_does_what_they_were_made_from(workspace):
    (workspace / "report.html").unlink()
    half = Artifact(workspace / "artifacts", "training", "aaaaaaaaaaaaaaaa")
    (half / "request.json").write_text(f'{{"pairs": "x/{only(workspace, "pairs").name}/data"}}')
    gone = removable(workspace)
    assert f"artifacts/{half.name}" not in gone
    assert f"artifacts/{only(workspace, 'pairs').name}" not in gone
    assert not any(each.startswith("reference/") for each in gone)
    os.utime(stray(workspace) / "record.json")
    assert f"artifacts/{stray(workspace).name}" not in removable(workspace)


def test_another_workspace_may_refer_to_this_one(workspace, tmp_path):
    other = tmp_path / "other"
    Artifact(other / "artifacts", "evaluation", "b" * 16).finish({}, (stray(workspace).name,))
    assert f"artifacts/{stray(workspace).name}" in removable(workspace)
    assert f"artifacts/{stray(workspace).name}" not in removable(workspace, also=[other])


def test_links_lead_nowhere(workspace, tmp_path):
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "file").touch()
    (workspace / "artifacts" / "training-cccccccccccccccc").symlink_to(treasure)
    (stray(workspace) / "data").symlink_to(treasure)
    age(stray(workspace))
    os.utime(stray(workspace) / "data", (LONG_AGO, LONG_AGO), follow_symlinks=False)
    assert main(["--workspace", str(workspace)]) == 0
    assert not stray(workspace).exists()
    assert (treasure / "file").exists()
    assert (workspace / "artifacts" / "training-cccccccccccccccc").is_symlink()


def test_a_quota_is_said_when_it_is_passed(workspace, capsys):
    options = ["--workspace", str(workspace), "--dry-run", "--quota-gb"]
    assert main([*options, "100"]) == 0
    assert main([*options, "0.001"]) == 1
    assert "Over the quota" in capsys.readouterr().out


def test_a_folder_that_is_no_workspace_is_refused(tmp_path, capsys):
    assert main(["--workspace", str(tmp_path)]) == 2
    assert "is no workspace" in capsys.readouterr().err
