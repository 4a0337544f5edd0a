from __future__ import annotations

from pathlib import Path

import pytest

from ccai_core.errors import ConfigError
from infra.cluster import ClusterConfig, Limits
from infra.jobs import Resources, submit
from infra.local_gpus import choose
from tests.infra import job_functions as functions

CLUSTER = ClusterConfig(name="test", kind="local", lease_seconds=20, limits=Limits(max_jobs=4))


@pytest.fixture(autouse=True)
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")


def test_the_gpus_with_the_fewest_jobs_come_first() -> None:
    assert choose(1, []) == ["4"]
    assert choose(1, [["4"], ["5", "6"], ["5"]]) == ["4"]
    assert choose(2, [["4"]]) == ["5", "6"]
    assert choose(1, [["4"], ["5"], ["6"]]) == ["4"]


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"asks for 4 GPUs; this machine has 3 \(4, 5, 6\)"):
        choose(4, [])


def test_gpus_that_the_user_has_hidden_stay_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose(1, []) == []


def test_two_jobs_at_once_get_different_gpus(tmp_path: Path) -> None:
    jobs, gate = tmp_path / "jobs", tmp_path / "gate"

    def start(key: str, number: int) -> str:
        job = submit(
            functions.note_gpus_and_wait, tmp_path / key, gate,
            resources=Resources(gpus=number), cluster=CLUSTER, key=key, folder=jobs,
        )  # fmt: skip
        started.append(job)
        return key

    started: list[object] = []
    for key, number in (("one", 1), ("two", 1), ("none", 0)):
        start(key, number)
    gate.touch()
    for job in started:
        job.result()  # type: ignore[attr-defined]
    seen = {key: (tmp_path / key).read_text() for key in ("one", "two", "none")}
    assert seen == {"one": "4", "two": "5", "none": ""}
