from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ccai_core.errors import (
    ArtifactError,
    ConfigError,
    JobCancelledError,
    JobError,
    JobLostError,
    JobRefusedError,
    JobTimeoutError,
    ModelError,
)
from infra.cluster import ClusterConfig, Limits
from infra.job_record import read_record, write_record
from infra.jobs import Job, Resources, cancel_all, gpu_hours, render, submit, submit_map
from infra.lease import Lease
from infra.processes import end_processes, job_processes
from tests.infra import job_functions as functions

ROOT = Path(__file__).parents[2]
CLUSTER = ClusterConfig(name="test", kind="local", limits=Limits(max_jobs=3), lease_seconds=20)
QUICK = CLUSTER.model_copy(update={"lease_seconds": 1.0})


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Path]:
    """A jobs folder; whatever still runs out of it is ended afterwards."""
    folder = tmp_path / "jobs"
    yield folder
    for attempt in folder.glob("*/attempt-*"):
        end_processes(functools.partial(job_processes, str(attempt.resolve())), grace=0)


Start = Callable[..., Job[Any]]


@pytest.fixture
def start(jobs: Path) -> Start:
    def start(fn: Callable[..., Any], *args: Any, key: str = "job", **options: Any) -> Job[Any]:
        defaults = {"resources": Resources(), "cluster": CLUSTER, "folder": jobs}
        return submit(fn, *args, key=key, **(defaults | options))

    return start


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def executions(notes: Path) -> int:
    return len(notes.read_text().splitlines()) if notes.exists() else 0


def processes(jobs: Path, key: str = "job", attempt: int = 1) -> list[psutil.Process]:
    return job_processes(str(jobs.resolve() / key / f"attempt-{attempt}"))


def is_gone(pid: int) -> bool:
    # In a container without an init, orphans stay as zombies.
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


# --- what a job is and gives back


def test_a_job_returns_its_value_and_is_read_again_without_running(
    start: Start, jobs: Path, tmp_path: Path
) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    looks: list[float] = []

    def progress() -> None:
        looks.append(time.monotonic())
        if len(looks) == 5:
            gate.touch()

    first = start(functions.note_and_wait, notes, gate)
    assert first.result(poll=0.05, on_poll=progress) == "through"
    assert len(looks) >= 5
    assert processes(jobs) == []
    first.cancel()  # too late: it has its result
    assert first.state() == "finished"
    assert start(functions.note_and_wait, notes, gate).result() == "through"
    assert executions(notes) == 1
    record = json.loads((jobs / "job" / "job.json").read_text())
    assert record["attempt"] == 1
    assert record["function"] == "tests.infra.job_functions:note_and_wait"


def test_the_job_sees_its_resources_and_the_drivers_directory_and_modules(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "infra.py").write_text("raise RuntimeError('the wrong infra')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    cluster = CLUSTER.model_copy(update={"environment": {"HF_HOME": "/models"}})
    job = start(functions.see_environment, cluster=cluster, resources=Resources(cpus=1, gpus=2))
    seen = job.result(poll=0.05)
    assert seen["HF_HOME"] == "/models"
    assert seen["CUDA_VISIBLE_DEVICES"] == "4,6"
    assert seen["OMP_NUM_THREADS"] == "1"
    assert seen["cwd"] == str(tmp_path)


def test_no_more_jobs_run_at_once_than_the_cluster_allows(start: Start, tmp_path: Path) -> None:
    one_place = CLUSTER.model_copy(update={"limits": Limits(max_jobs=1)})
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    first = start(functions.note_and_wait, notes, gate, cluster=one_place)
    wait_for(lambda: executions(notes) == 1)
    second: list[Job[Any]] = []
    waiting = threading.Thread(
        target=lambda: second.append(start(functions.add, 1, 1, key="b", cluster=one_place))
    )
    waiting.start()
    time.sleep(0.3)
    assert second == []
    gate.touch()
    assert first.result(poll=0.05) == "through"
    waiting.join(5)
    assert second[0].result(poll=0.05) == 2


def test_gpus_and_gpu_hours_have_limits(start: Start, jobs: Path, tmp_path: Path) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    tight = CLUSTER.model_copy(update={"limits": Limits(max_jobs=5, max_gpus=2, max_gpu_hours=1)})
    half = {"cluster": tight, "resources": Resources(gpus=2, minutes=15), "owner": "flow-1"}
    first = start(functions.note_and_wait, notes, gate, key="a", **half)
    assert gpu_hours(jobs, "flow-1") == 0.5
    second: list[Job[Any]] = []
    waiting = threading.Thread(
        target=lambda: second.append(start(functions.add, 1, 1, key="b", **half))
    )
    waiting.start()
    time.sleep(0.3)
    assert second == [], "it waits for GPUs"
    gate.touch()
    first.result(poll=0.05)
    waiting.join(5)
    assert second[0].result(poll=0.05) == 2
    assert 0 < gpu_hours(jobs, "flow-1") < 0.1, "what is over counts as long as it ran"
    assert gpu_hours(jobs, "flow-2") == 0
    hour = half | {"resources": Resources(gpus=2, minutes=30)}
    with pytest.raises(JobRefusedError, match=r"could use 1.00 GPU hours; 0.00 of 1 .* by flow-1"):
        start(functions.add, 1, 1, key="c", **hour)
    assert start(functions.add, 1, 1, key="c", **(hour | {"owner": "x"})).result(poll=0.05) == 2
    with pytest.raises(JobRefusedError, match="asks for 3 GPUs"):
        start(functions.add, 1, 1, key="d", **(half | {"resources": Resources(gpus=3)}))
    with pytest.raises(ConfigError, match="without a time limit"):
        start(functions.add, 1, 1, key="d", **(half | {"resources": Resources(gpus=1)}))


def test_a_map_is_a_job_for_each_item(jobs: Path) -> None:
    def again(items: list[Any]) -> list[Job[Any]]:
        return submit_map(
            functions.negate, items, key="m", resources=Resources(), cluster=CLUSTER, folder=jobs
        )

    assert [job.result(poll=0.05) for job in again([1, 2, 3, 4])] == [-1, -2, -3, -4]
    assert [job.key for job in again([1, 2])] == ["m.0", "m.1"]


def test_a_dry_run_shows_the_command_and_starts_nothing(jobs: Path) -> None:
    text = render(functions.add, 1, 2, resources=Resources(), cluster=CLUSTER, key="k", folder=jobs)
    assert "tests.infra.job_functions:add" in text
    assert "no GPU" in text
    assert not jobs.exists()


def test_a_job_of_several_machines_needs_a_cluster(start: Start) -> None:
    with pytest.raises(ConfigError, match="one machine"):
        start(functions.add, 1, 2, resources=Resources(nodes=2))


def test_processes_of_a_job_find_each_other(start: Start) -> None:
    job = start(functions.sum_of_ranks, resources=Resources(tasks_per_node=3))
    assert job.result(poll=0.1) == [3, 0, 0 + 1 + 2]


def test_one_process_that_dies_ends_its_job(start: Start, tmp_path: Path) -> None:
    job = start(functions.last_rank_dies, tmp_path / "pids", resources=Resources(tasks_per_node=2))
    with pytest.raises(JobError):
        job.result(poll=0.1)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_an_error_of_one_process_ends_all(start: Start) -> None:
    job = start(functions.last_rank_refuses, resources=Resources(tasks_per_node=2))
    with pytest.raises(ConfigError, match="rank 1 will not"):
        job.result(poll=0.1)


# --- errors


def test_an_error_of_the_users_kind_keeps_class_and_message(start: Start) -> None:
    expected = {"ConfigError": ConfigError, "WeightsError": ModelError}
    jobs = {kind: start(functions.refuse, kind, key=kind) for kind in expected}
    for kind, job in jobs.items():
        with pytest.raises(expected[kind]) as caught:
            job.result(poll=0.05)
        assert type(caught.value) is expected[kind]
        assert str(caught.value) == f"{kind}: the value is wrong; set another."
        assert job.state() == "failed"


def test_any_other_error_is_a_job_error_with_the_end_of_the_log(
    start: Start, tmp_path: Path
) -> None:
    raising = start(functions.divide, 1, 0, key="raising")
    crashing = start(functions.crash, 40, tmp_path / "pid", key="crashing")
    with pytest.raises(JobError, match="ZeroDivisionError: division by zero") as raised:
        raising.result(poll=0.05)
    assert str(raising.logs()[1]) in str(raised.value)
    assert "Traceback" in raising.logs()[1].read_text()
    assert raising.state() == "failed"
    with pytest.raises(JobLostError, match="ended without a result") as crashed:
        crashing.result(poll=0.05)
    assert "line 39" in str(crashed.value)
    assert "line 24" not in str(crashed.value)
    assert crashing.state() == "lost"
    assert is_gone(int((tmp_path / "pid").read_text())), "a crash takes the children along"


def test_a_failed_job_is_started_again(start: Start, jobs: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="the first one fails"):
        start(functions.fail_once, tmp_path / "notes").result(poll=0.05)
    again = start(functions.fail_once, tmp_path / "notes")
    assert (again.attempt, again.result(poll=0.05)) == (2, "mended")
    assert (jobs / "job" / "attempt-1").is_dir()


def test_the_time_limit_ends_even_a_function_that_retries(start: Start, tmp_path: Path) -> None:
    resources = Resources(minutes=0.07)
    job = start(functions.swallow_everything, tmp_path / "entered", resources=resources)
    with pytest.raises(JobTimeoutError, match="time limit"):
        job.result(poll=0.05)
    assert (tmp_path / "entered").exists()


class Wrapped:
    """As a Prefect task is: an object made of a function."""

    def __call__(self) -> None: ...


@functools.wraps(functions.add)
def borrowed_name(*args: int) -> int:
    return sum(args)


@pytest.mark.parametrize(
    ("fn", "problem"),
    [
        (lambda: None, "lambda"),
        (functions.outer(), "inside another function"),
        (Wrapped.__call__, "a class"),
        (Wrapped(), "is a Wrapped, not a function"),
        (functools.partial(functions.add, 1), "is a partial"),
        (len, "builtin"),
        (borrowed_name, "wrapped round"),
    ],
)
def test_only_plain_functions_are_taken(start: Start, jobs: Path, fn: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        start(fn)
    assert not jobs.exists()


def test_functions_of_the_program_itself_are_refused(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions.add, "__module__", "__main__")
    with pytest.raises(ConfigError, match="__main__"):
        start(functions.add)


def test_arguments_that_do_not_pickle_are_refused(start: Start, jobs: Path) -> None:
    with pytest.raises(ConfigError, match=r"arguments of add .*Pass plain values"):
        start(functions.add, threading.Lock(), 1)
    assert not (jobs / "job" / "job.json").exists()


@pytest.mark.parametrize("key", ["", "../up", "a/b", ".hidden", "x" * 200, "a b"])
def test_a_key_is_a_file_name(start: Start, key: str) -> None:
    with pytest.raises(ConfigError, match="Job key"):
        start(functions.add, 1, 2, key=key)


def test_a_damaged_record_is_named(start: Start, jobs: Path) -> None:
    (jobs / "job").mkdir(parents=True)
    (jobs / "job" / "job.json").write_text('{"key": "job"')
    with pytest.raises(ArtifactError, match=r"job\.json is not a job record"):
        start(functions.add, 1, 2)


# --- attaching


def test_threads_that_submit_one_key_start_one_job(start: Start, tmp_path: Path) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    got: list[Job[Any]] = []
    threads = [
        threading.Thread(target=lambda: got.append(start(functions.note_and_wait, notes, gate)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gate.touch()
    assert [job.result(poll=0.05) for job in got] == ["through"] * 4
    assert executions(notes) == 1


def test_a_reused_pid_is_not_taken_for_the_job(start: Start, jobs: Path, tmp_path: Path) -> None:
    start(functions.fail_once, tmp_path / "notes").cancel()
    home = jobs.resolve() / "job"
    record = read_record(home)
    assert record is not None
    write_record(home, record.model_copy(update={"job_id": str(os.getpid())}))
    assert start(functions.add, 1, 2).result(poll=0.05) == 3


DRIVER = textwrap.dedent("""
    import os, signal, sys
    # A runner in the background of a script starts us with these off; a terminal does not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    from pathlib import Path
    from infra.cluster import ClusterConfig, Limits
    from infra.jobs import Resources, submit
    from tests.infra import job_functions as functions

    jobs, notes, gate, lease = sys.argv[1:]
    cluster = ClusterConfig(name="test", kind="local", lease_seconds=float(lease))
    job = submit(functions.note_and_wait, Path(notes), Path(gate), resources=Resources(),
                 cluster=cluster, key="job", folder=Path(jobs))
    print("submitted", flush=True)
    try:
        print(job.result(poll=0.05), flush=True)
    except KeyboardInterrupt:
        print(job.state(), flush=True)
""")


class Driver:
    """A program of its own that submits `note_and_wait` and waits for it."""

    def __init__(self, jobs: Path, tmp_path: Path, lease_seconds: float) -> None:
        self.notes, self.gate = tmp_path / "notes", tmp_path / "gate"
        arguments = [str(each) for each in (jobs, self.notes, self.gate, lease_seconds)]
        # A session of its own stands for a terminal: signals go to all that run in it.
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "submitted\n"

    def until_it_runs(self) -> Driver:
        wait_for(lambda: executions(self.notes) == 1)
        return self

    def end(self, number: int) -> str:
        os.killpg(self.process.pid, number)
        return self.process.communicate(timeout=30)[0]


def test_a_job_survives_its_killed_driver_and_the_next_one_joins_it(
    jobs: Path, tmp_path: Path
) -> None:
    first = Driver(jobs, tmp_path, lease_seconds=2.5).until_it_runs()
    first.end(signal.SIGKILL)
    second = Driver(jobs, tmp_path, lease_seconds=2.5)
    time.sleep(3)  # longer than the lease: the second driver renews it
    assert executions(second.notes) == 1
    second.gate.touch()
    assert second.process.communicate(timeout=20)[0] == "through\n"
    assert executions(second.notes) == 1


def test_a_job_whose_driver_is_killed_ends_itself(jobs: Path, tmp_path: Path, start: Start) -> None:
    driver = Driver(jobs, tmp_path, lease_seconds=2).until_it_runs()
    killed = time.monotonic()
    driver.end(signal.SIGKILL)
    assert processes(jobs) != []
    wait_for(lambda: processes(jobs) == [], seconds=10)
    assert 1.0 < time.monotonic() - killed < 6.0
    assert executions(driver.notes) == 1
    again = start(functions.note_and_wait, driver.notes, driver.gate)
    assert again.attempt == 2
    again.cancel()
    log = next((jobs / "job" / "attempt-1").glob("*_log.err")).read_text()
    assert "the driver is gone, this job ends" in log


def test_an_ending_job_takes_its_family_along(start: Start, jobs: Path, tmp_path: Path) -> None:
    """The lease runs out: the job's grandchild ignores SIGTERM and has left tree and session."""
    pids = tmp_path / "pids"
    lease = Lease(tmp_path / "lease", every=0.25).start()
    start(functions.start_family, pids, cluster=QUICK, lease=lease)
    wait_for(lambda: executions(pids) == 1)
    lease.stop()  # the driver is gone, as far as the job can tell
    wait_for(lambda: processes(jobs) == [], seconds=12)
    assert is_gone(int(pids.read_text()))


def test_a_job_that_nobody_wrote_down_does_not_run(
    start: Start, jobs: Path, tmp_path: Path
) -> None:
    """The driver dies between starting the process and writing job.json."""
    from infra import job_start as module

    def die(*_: Any) -> None:
        raise SystemExit

    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_record", die)
        with pytest.raises(SystemExit):
            start(functions.note_and_wait, notes, gate)
    gate.touch()
    assert processes(jobs) != []
    assert start(functions.note_and_wait, notes, gate).result(poll=0.05) == "through"
    wait_for(lambda: processes(jobs) == [])
    assert executions(notes) == 1


# --- ending


def test_cancel_ends_the_whole_family_and_frees_the_key(
    start: Start, jobs: Path, tmp_path: Path
) -> None:
    job = start(functions.clean_up_when_ended, tmp_path / "entered", tmp_path / "cleaned")
    wait_for((tmp_path / "entered").exists)
    began = time.monotonic()
    job.cancel()
    assert time.monotonic() - began < 5
    assert (tmp_path / "cleaned").exists()
    assert processes(jobs) == []
    assert job.state() == "cancelled"
    with pytest.raises(JobCancelledError, match="was cancelled"):
        job.result()
    assert start(functions.add, 1, 2).result(poll=0.05) == 3


def test_cancel_kills_a_grandchild_that_ignores_it(
    start: Start, jobs: Path, tmp_path: Path
) -> None:
    job = start(functions.start_family, tmp_path / "pids", unwind_seconds=0.5)
    wait_for(lambda: executions(tmp_path / "pids") == 1)
    job.cancel()
    assert processes(jobs) == []
    assert is_gone(int((tmp_path / "pids").read_text()))


def test_several_jobs_share_a_lease_that_is_not_theirs(start: Start, tmp_path: Path) -> None:
    lease = Lease(tmp_path / "lease", every=0.25).start()
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    keys = ["a", "b", "c"]
    several = [
        start(functions.note_and_wait, notes, gate, key=key, cluster=QUICK, lease=lease)
        for key in keys
    ]
    wait_for(lambda: executions(notes) == 3)
    several[0].cancel()
    time.sleep(2)
    assert [job.state() for job in several] == ["cancelled", "running", "running"]
    assert several[1].status().seconds > 0
    cancel_all(several)
    assert [job.state() for job in several] == ["cancelled"] * 3
    assert lease.path.exists()
    lease.stop()


def test_an_interrupted_wait_cancels_the_job(start: Start, jobs: Path, tmp_path: Path) -> None:
    class Cancelled(BaseException):
        pass

    def cancel() -> None:
        if executions(tmp_path / "notes"):
            raise Cancelled

    job = start(functions.note_and_wait, tmp_path / "notes", tmp_path / "gate")
    with pytest.raises(Cancelled):
        job.result(poll=0.05, on_poll=cancel)
    assert job.state() == "cancelled"
    assert processes(jobs) == []


def test_ctrl_c_in_the_terminal_ends_in_cancelled(jobs: Path, tmp_path: Path) -> None:
    driver = Driver(jobs, tmp_path, lease_seconds=20).until_it_runs()
    assert driver.end(signal.SIGINT) == "cancelled\n"
    assert processes(jobs) == []


def test_a_closed_terminal_leaves_the_job_for_the_next_driver(jobs: Path, tmp_path: Path) -> None:
    driver = Driver(jobs, tmp_path, lease_seconds=20).until_it_runs()
    driver.end(signal.SIGHUP)
    next_driver = Driver(jobs, tmp_path, lease_seconds=20)
    next_driver.gate.touch()
    assert next_driver.process.communicate(timeout=20)[0] == "through\n"
    assert executions(driver.notes) == 1


def test_a_file_system_that_is_away_for_a_moment_does_not_end_the_wait(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = start(functions.add, 2, 3)
    look, failures = job._look, iter([OSError(116, "Stale file handle")] * 2)

    def stale(newer_than: float = 0.0) -> Any:
        if (error := next(failures, None)) is not None:
            raise error
        return look(newer_than)

    monkeypatch.setattr(job, "_look", stale)
    assert job.result(poll=0.05) == 5
    assert [r.message for r in caplog.records if "Stale file handle" in r.message] == [
        "Job job cannot be looked at ([Errno 116] Stale file handle); trying on."
    ]
