from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccai_core.errors import ArtifactError
from infra.artifacts import Artifact
from infra.cluster import ClusterConfig
from infra.jobs import Resources, forget, submit
from infra.processes import end_processes, job_processes
from tests.infra import job_functions as functions

CLUSTER = ClusterConfig(name="test", kind="local", lease_seconds=20)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """A finished artifact of three files."""
    made = Artifact(tmp_path / "artifacts", "pairs", "3f2a")
    (made / "pairs.jsonl").write_text("one\ntwo\n")
    (made / "model").mkdir()
    (made / "model" / "weights").write_bytes(b"\0\1\2")
    (made / "empty").touch()
    made.finish({"seed": 1, "path": Path("x")}, parents=("training-1",), facts={"pairs": 2})
    return made


def test_it_is_complete_only_once_its_record_is_there(tmp_path: Path) -> None:
    made = Artifact(tmp_path, "pairs", "3f2a")
    assert made.folder == tmp_path / "pairs-3f2a"
    (made / "pairs.jsonl").write_text("one\n")
    assert not made.is_complete()
    assert made.record() is None
    made.finish({})
    assert made.is_complete()
    assert Artifact(tmp_path, "pairs", "3f2a").is_complete()
    assert not Artifact(tmp_path, "pairs", "3f2b").is_complete()


def test_the_record_says_what_it_is_and_where_it_came_from(artifact: Artifact) -> None:
    record = artifact.record()
    assert record is not None
    assert (record.kind, record.fingerprint) == ("pairs", "3f2a")
    assert record.inputs == {"seed": 1, "path": "x"}
    assert (record.parents, record.facts) == (("training-1",), {"pairs": 2})
    assert {name: size for name, (size, _) in record.files.items()} == {
        "empty": 0, "model/weights": 3, "pairs.jsonl": 8,
    }  # fmt: skip
    assert not list(artifact.folder.glob(".record*")), "written whole, nothing left over"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("pairs.jsonl", b"one\nTwo\n"),  # as long as before
        ("pairs.jsonl", b"one\n"),
        ("model/weights", b""),
        ("model/weights", None),
        ("empty", b"x"),
    ],
)
def test_a_file_that_is_not_as_it_was_makes_it_incomplete(
    artifact: Artifact, file: str, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = artifact / file
    path.unlink() if content is None else path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert not artifact.is_complete()
    assert [str(path) in line and "made again" in line for line in caplog.messages] == [True]


def test_progress_hidden_files_and_what_is_left_out_are_no_content(tmp_path: Path) -> None:
    made = Artifact(tmp_path, "training", "1")
    for name in ("model/w", "model/checkpoints", "checkpoints/1/w", "progress.json", ".lock",
                 ".cache/w", "model/.part"):  # fmt: skip
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text("before")
    made.finish({}, leave_out=("checkpoints",))
    record = made.record()
    assert record is not None
    assert set(record.files) == {"model/w", "model/checkpoints"}
    for name in ("progress.json", ".lock", ".cache/w", "checkpoints/1/w", "new"):
        (made / name).write_text("after")
    (made / "model" / ".part").unlink()
    assert made.is_complete()


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "{}", '{"kind": "pairs", "x": 1}'])
def test_a_damaged_record_is_an_error_that_says_the_way_out(
    artifact: Artifact, content: str
) -> None:
    (artifact / "record.json").write_text(content)
    for look in (artifact.record, artifact.is_complete):
        with pytest.raises(ArtifactError, match=r"record\.json cannot be read") as caught:
            look()
        assert f"Remove {artifact.folder} to make it again" in str(caught.value)


def test_a_record_that_is_not_text_is_an_error_too(artifact: Artifact) -> None:
    (artifact / "record.json").write_bytes(b"\xff\xfe\0")
    with pytest.raises(ArtifactError, match="Remove"):
        artifact.record()


def test_a_record_of_another_version_is_told_by_its_key(artifact: Artifact) -> None:
    path = artifact / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "red"}))
    with pytest.raises(ArtifactError, match="colour"):
        artifact.record()


def test_finishing_again_replaces_the_record(artifact: Artifact) -> None:
    (artifact / "pairs.jsonl").write_text("three\n")
    artifact.finish({"seed": 2})
    record = artifact.record()
    assert record is not None
    assert record.inputs == {"seed": 2}
    assert artifact.is_complete()


# --- forgetting the job that made it


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "jobs"
    yield folder
    for attempt in folder.glob("*/attempt-*"):
        cookie = str(attempt.resolve())
        end_processes(lambda cookie=cookie: job_processes(cookie), grace=0)  # type: ignore[misc]


def test_a_forgotten_job_runs_again_and_a_live_one_is_left_alone(
    jobs: Path, tmp_path: Path
) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"

    def start() -> str:
        job = submit(
            functions.note_and_wait, notes, gate,
            resources=Resources(), cluster=CLUSTER, key="pairs-1", folder=jobs,
        )  # fmt: skip
        if not gate.exists():
            until = time.monotonic() + 10
            while not notes.exists():
                assert time.monotonic() < until
                time.sleep(0.02)
            forget("pairs-1", folder=jobs)
            assert job.state() == "running"
            assert (jobs / "pairs-1" / "job.json").exists()
            gate.touch()
        return f"{job.result(poll=0.05)} {job.attempt}"

    assert start() == "through 1"
    assert start() == "through 1", "read, not run"
    forget("pairs-1", folder=jobs)
    assert start() == "through 2"
    assert len(notes.read_text().splitlines()) == 2


def test_forgetting_what_never_ran_does_nothing(jobs: Path) -> None:
    forget("pairs-1", folder=jobs)
    assert list(jobs.glob("*/job.json")) == []
