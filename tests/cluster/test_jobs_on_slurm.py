"""What a job on Slurm is and gives back: values, errors, ranks, arrays, limits, secrets."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccai_core.errors import (
    ConfigError,
    JobCancelledError,
    JobCrashedError,
    JobError,
    JobLostError,
    JobMemoryError,
    JobRefusedError,
    ModelError,
)
from infra import slurm
from infra.backends import Sighting
from infra.cluster import Limits, RoleConfig
from infra.job_endings import ended_without_result
from infra.jobs import Resources, cancel_all, gpu_hours, render, submit_map
from infra.slurm_jobs import SlurmJobs
from tests.cluster import slurm_functions as functions
from tests.cluster.slurm_lab import SlurmLab
from tests.cluster.workplace import Workplace, is_running, lines, until
from tests.infra import job_functions


@pytest.fixture
def work(on_lab: SlurmLab, tmp_path: Path) -> Iterator[Workplace]:
    yield Workplace(on_lab, tmp_path)
    on_lab.cancel_all()


def test_values_and_errors_come_back_with_class_and_message(work: Workplace) -> None:
    value = work.submit(functions.echo, {"a": [1, None]}, key="value")
    refused = work.submit(job_functions.refuse, "WeightsError", key="refused")
    raised = work.submit(job_functions.divide, 1, 0, key="raised")
    crashed = work.submit(job_functions.crash, 40, work.path("pid"), key="crashed")
    killed = work.submit(functions.kill_itself, key="killed")
    silent = work.submit(functions.leave_silently, key="silent")

    jobs = [value, refused, raised, crashed, killed, silent]
    until(lambda: all([job.state() not in {"queued", "running"} for job in jobs]))  # noqa: C419

    assert value.result(poll=0.1) == {"a": [1, None]}
    status = value.status()
    assert (status.state, status.restarts) == ("finished", 0)
    assert status.node.startswith("node")
    with pytest.raises(ModelError, match=r"^WeightsError: the value is wrong; set another\.$"):
        refused.result(poll=0.1)
    with pytest.raises(JobError, match="ZeroDivisionError: division by zero") as error:
        raised.result(poll=0.1)
    assert type(error.value) is JobError
    with pytest.raises(JobCrashedError, match="exit code 3") as crash:
        crashed.result(poll=0.1)
    assert "line 39" in str(crash.value)
    assert str(crashed.logs()[1]) in str(crash.value)
    with pytest.raises(JobCrashedError, match="SIGKILL"):
        killed.result(poll=0.1)
    with pytest.raises(JobLostError, match="Slurm calls it completed"):
        silent.result(poll=0.1)
    assert [job.state() for job in jobs[1:]] == [
        "failed", "failed", "failed", "failed", "lost",
    ]  # fmt: skip
    # A finished one is read, a failed one is a new attempt.
    assert work.submit(functions.echo, "another", key="value").result() == {"a": [1, None]}
    again = work.submit(functions.echo, 1, key="crashed")
    assert (again.attempt, again.result(poll=0.1)) == (2, 1)


def test_a_job_without_enough_memory_says_so(work: Workplace) -> None:
    """The lab's Slurm enforces no memory; its word is what a cluster's would be."""
    job = work.submit(functions.leave_silently)
    error = ended_without_result(job._record, Sighting("gone", "OUT_OF_MEMORY"), job._paths)
    assert type(error) is JobMemoryError
    assert "`memory_gb`" in str(error)
    job.cancel()


def test_cancelling_ends_job_and_children_by_whoever_does_it(work: Workplace) -> None:
    mine = work.submit(functions.start_stray_child, work.path("mine"), key="mine")
    theirs = work.submit(functions.start_stray_child, work.path("theirs"), key="theirs")
    held = work.submit(functions.echo, 1, key="held", cluster=work.profile(sbatch={"hold": True}))
    until(lambda: lines(work.path("mine")) and lines(work.path("theirs")))
    assert held.state() == "queued"
    assert held.status().reason == "JobHeldUser"
    mine.cancel()
    assert mine.state() == "cancelled"
    with pytest.raises(JobCancelledError, match="was cancelled"):
        mine.result(poll=0.1)
    work.lab.run("scancel", theirs.job_id, held.job_id)
    cancelled = time.monotonic()
    for job in (theirs, held):
        with pytest.raises(JobCancelledError, match="was cancelled by you"):
            job.result(poll=0.1)
    assert time.monotonic() - cancelled < 30
    pids = [int(lines(work.path(name))[0]) for name in ("mine", "theirs")]
    until(lambda: not any(is_running(pid) for pid in pids))
    # The key is free again.
    assert work.submit(functions.echo, 2, key="mine").result(poll=0.1) == 2


def test_a_job_gets_its_time_to_unwind_and_many_end_by_one_command(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(slurm, "run", _counting(slurm.run, calls))
    notes = work.path("notes")
    # Slurm's own KillWait is 5 s here.
    jobs = [
        work.submit(functions.take_long_to_unwind, notes, 8, key=f"slow{n}", unwind_seconds=20)
        for n in range(3)
    ]
    until(lambda: len(lines(notes)) == 3)
    cancel_all(jobs)
    assert lines(notes).count("drained") == 3
    assert [job.state() for job in jobs] == ["cancelled"] * 3
    assert len([call for call in calls if call[0] == "scancel"]) == 1


def _counting(run: Any, calls: list[tuple[str, ...]]) -> Any:
    def counted(*command: str) -> str:
        calls.append(command)
        return str(run(*command))

    return counted


def test_one_rank_dying_ends_a_job_of_two_nodes(work: Workplace) -> None:
    dying = work.submit(
        functions.one_rank_dies, work.path("notes"), key="dying", resources=Resources(nodes=2)
    )
    four = work.submit(
        functions.own_rank, key="four", resources=Resources(nodes=2, tasks_per_node=2)
    )
    assert four.result(poll=0.1) == "0"
    with pytest.raises(JobCrashedError, match="exit code 7"):
        dying.result(poll=0.1)
    assert len({line.split()[-1] for line in lines(work.path("notes"))}) == 2


def test_a_map_goes_in_as_arrays_and_asks_slurm_once_for_all(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(slurm, "run", _counting(slurm.run, calls))
    monkeypatch.setattr("infra.jobs.setting", lambda *_: "4")
    options = {"resources": Resources(), "cluster": work.cluster, "folder": work.jobs}
    began = time.monotonic()
    jobs = submit_map(functions.double, range(9), key="map", **options)
    masters = [job.job_id.split("_")[0] for job in jobs]
    assert [masters.count(each) for each in dict.fromkeys(masters)] == [4, 4, 1]
    assert [job.result(poll=0.2) for job in jobs] == [2 * n for n in range(9)]
    took = time.monotonic() - began
    queries = [call for call in calls if call[0] in {"squeue", "sacct", "scontrol"}]
    assert len(queries) <= 8 + took, queries
    # Joined or read again, and only what is new is submitted.
    again = submit_map(functions.double, range(10), key="map", **options)
    assert [job.job_id for job in again[:9]] == [job.job_id for job in jobs]
    assert again[9].result(poll=0.1) == 18


def test_no_more_of_a_map_run_at_once_than_the_profile_allows(work: Workplace) -> None:
    notes, gate = work.path("notes"), work.path("gate")
    narrow = work.profile(limits=Limits(max_jobs=2))
    jobs = submit_map(
        functions.hold_one, [(notes, gate)] * 4, key="map", resources=Resources(),
        cluster=narrow, folder=work.jobs,
    )  # fmt: skip
    until(lambda: len(lines(notes)) == 2)
    time.sleep(3)
    assert lines(notes) == ["begin", "begin"]
    gate.touch()
    assert [job.result(poll=0.2) for job in jobs] == [None] * 4


@pytest.mark.parametrize(
    ("other", "resources", "named"),
    [
        ({"partition": "nope"}, {}, "partition = 'nope'"),
        ({"account": "nope"}, {}, "account = 'nope'"),
        ({"qos": "nope"}, {}, "qos = 'nope'"),
        ({"constraint": "nope"}, {}, "constraint = 'nope'"),
        ({"gpu_type": "h100"}, {"gpus": 1}, "gpu_type = 'h100'"),
        ({"gpus_per_node": 9}, {"gpus": 9}, "gpus_per_node = 9"),
        ({"memory_gb": 900}, {}, "memory_gb = 900"),
        ({"reservation": "nope"}, {}, "reservation = 'nope'"),
        ({"sbatch": {"nonsense": "x"}}, {}, "nonsense"),
    ],
)
def test_what_slurm_refuses_is_named_by_the_profiles_key(
    work: Workplace, other: dict[str, Any], resources: dict[str, Any], named: str
) -> None:
    with pytest.raises(JobRefusedError) as refused:
        work.submit(
            functions.echo, 1, cluster=work.profile(**other), resources=Resources(**resources)
        )
    assert named in str(refused.value)
    assert not (work.jobs / "job" / "job.json").exists()


def test_what_cannot_work_is_refused_before_slurm_is_asked(
    work: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlurmJobs, "start", lambda *_: pytest.fail("Slurm was asked"))
    readonly = tmp_path / "ro"
    for match, more in {
        "3 GPUs a node": {"resources": Resources(gpus=3)},
        "not below": {"cluster": work.profile(storage=tmp_path / "elsewhere")},
        "Make it": {"cluster": work.profile(storage=readonly), "folder": readonly / "jobs"},
        "'%'": {"folder": tmp_path / "100%" / "jobs"},
        "sbatch.output": {"cluster": work.profile(sbatch={"output": "/tmp/x"})},
        "sbatch.mem is said by a key of the profile: memory_gb": {
            "cluster": work.profile(sbatch={"mem": "4G"})
        },
    }.items():
        with pytest.raises(ConfigError, match=match):
            work.submit(functions.echo, 1, **more)


def test_limits_on_gpus_and_gpu_hours(work: Workplace, caplog: pytest.LogCaptureFixture) -> None:
    notes, gate = work.path("notes"), work.path("gate")
    tight = work.profile(limits=Limits(max_jobs=9, max_gpus=2, max_gpu_hours=0.5))
    one = Resources(gpus=2, minutes=12)  # 0.4 GPU hours at most
    running = work.submit(
        functions.hold, notes, gate, key="a", resources=one, cluster=tight, owner="flow-1"
    )
    until(lambda: lines(notes))
    assert gpu_hours(work.jobs, "flow-1") == pytest.approx(0.4)
    gate.touch()
    running.result(poll=0.1)
    assert gpu_hours(work.jobs, "flow-1") < 0.05, "what is over counts as long as it ran"
    with pytest.raises(JobRefusedError, match=r"could use 0.60 GPU hours.*of 0.5.*by flow-1"):
        work.submit(
            functions.echo, 1, key="b", resources=Resources(gpus=2, minutes=18), cluster=tight,
            owner="flow-1",
        )  # fmt: skip
    with pytest.raises(JobRefusedError, match="asks for 4 GPUs"):
        work.submit(functions.echo, 1, key="b", resources=Resources(nodes=2, gpus=2), cluster=tight)
    endless = tight.model_copy(update={"minutes": None})
    with pytest.raises(ConfigError, match="without a time limit"):
        work.submit(functions.echo, 1, key="b", resources=Resources(gpus=1), cluster=endless)


def test_a_dry_run_shows_script_and_cost_and_submits_nothing(work: Workplace) -> None:
    profile = work.profile(roles={"train": RoleConfig(partition="high", gpu_type="fake")})
    text = render(
        functions.echo, 1, resources=Resources(nodes=2, gpus=2, minutes=30, checkpointable=True),
        cluster=profile, key="train-1", folder=work.jobs, role="train",
    )  # fmt: skip
    assert text.startswith("#!/bin/bash\n# Job train-1: 4 GPUs, at most 2 GPU hours\n")
    for line in ("--partition=high", "--gres=gpu:fake:2", "--nodes=2", "--time=30", "--requeue"):
        assert f"#SBATCH {line}\n" in text
    assert "--no-requeue" not in text
    assert not work.jobs.exists()
    assert work.lab.jobs() == []


def test_only_named_secrets_travel_and_no_value_is_written_anywhere(
    work: Workplace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    planted = {"HF_TOKEN": "planted-1", "WANDB_API_KEY": "planted-2", "MY_TOKEN": "planted-3"}
    for name, value in (planted | {"HF_HOME": "/cache", "SBATCH_PARTITION": "nope"}).items():
        monkeypatch.setenv(name, value)
    profile = work.profile(
        secrets=("MY_TOKEN", "NOT_SET"), environment={"GREETING": 'it\'s $(touch pwned) `x` "q"'}
    )
    seen = work.submit(functions.see_names, cluster=profile).result(poll=0.1)
    expected = {"MY_TOKEN": "planted-3", "HF_HOME": "/cache", **profile.environment}
    for name, value in expected.items():
        assert seen[name] == hashlib.sha256(value.encode()).hexdigest(), name
    assert not {"HF_TOKEN", "WANDB_API_KEY", "SBATCH_PARTITION"} & set(seen)
    for file in work.root.rglob("*"):
        if file.is_file():
            assert b"planted" not in file.read_bytes(), file
    assert "planted" not in caplog.text
    assert "planted" not in work.lab.run("scontrol", "show", "job")


def test_names_and_paths_are_data(work: Workplace) -> None:
    """Nothing of a path or value is run by a shell on its way."""
    odd = work.root / "a b; touch pwned; $(touch pwned2) 'q' \"d\" & #"
    value = "$(touch pwned3); `touch pwned4`"
    job = work.submit(functions.echo, value, folder=odd / "jobs", cluster=work.profile())
    assert job.result(poll=0.1) == value
    assert job.logs()[1].is_file()
    assert not list(work.root.rglob("pwned*"))
    assert not list(Path.cwd().glob("pwned*"))
