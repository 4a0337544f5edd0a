"""Jobs on Slurm outlive what happens to their driver, to their nodes and to Slurm itself."""

from __future__ import annotations

import logging
import os
import signal
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccai_core.errors import (
    JobCancelledError,
    JobCrashedError,
    JobPreemptedError,
    JobTimeoutError,
)
from infra import slurm_command
from infra.jobs import Job, Resources
from infra.lease import Lease
from tests.cluster import slurm_functions as functions
from tests.cluster.slurm_lab import SlurmLab
from tests.cluster.workplace import Workplace, is_running, lines, until

GOES_ON = Resources(checkpointable=True)


@pytest.fixture
def work(on_lab: SlurmLab, tmp_path: Path) -> Iterator[Workplace]:
    yield Workplace(on_lab, tmp_path)
    on_lab.heal()
    on_lab.cancel_all()


class Counting:
    """`count_up` as a job, with the files that steer and show it."""

    def __init__(self, work: Workplace, name: str = "counting") -> None:
        self.work = work
        self.name = name
        self.notes, self.gate, self.counter = (
            work.path(f"{name}-{each}") for each in ("notes", "gate", "counter")
        )

    def submit(self, resources: Resources = GOES_ON, **more: Any) -> Job[Any]:
        job = self.work.submit(
            functions.count_up, self.notes, self.gate, self.counter, key=self.name,
            resources=resources, **more,
        )  # fmt: skip
        until(lambda: lines(self.notes))
        return job

    def starts(self) -> list[str]:
        return [line.split()[1] for line in lines(self.notes)]


DRIVER = textwrap.dedent("""
    import os, signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from pathlib import Path
    from infra import job_start
    from infra.cluster import ClusterConfig
    from infra.jobs import Resources, submit
    from tests.cluster import slurm_functions as functions

    root, lease, end = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    if end == "unrecorded":
        job_start.write_record = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    cluster = ClusterConfig(name="lab", kind="slurm", storage=root, lease_seconds=lease,
                            minutes=10, cpus=1, memory_gb=0.4)
    job = submit(functions.count_up, *(root / f"d-{each}" for each in ("notes", "gate", "counter")),
                 resources=Resources(), cluster=cluster, key="d", folder=root / "work" / "jobs")
    print(job.job_id, flush=True)
    try:
        print(job.result(poll=0.1), flush=True)
    except KeyboardInterrupt:
        print(job.state(), flush=True)
""")


def test_a_killed_driver_that_comes_back_finds_its_one_job(work: Workplace) -> None:
    counting = Counting(work, "d")
    first = work.driver(DRIVER, 6, "waits")
    until(lambda: counting.starts())
    first.kill()
    second = work.driver(DRIVER, 6, "waits")
    time.sleep(8)  # longer than the lease: the second driver renews it
    counting.gate.touch()
    out, _ = second.communicate(timeout=30)
    assert out.splitlines()[1:] == ["through at start 0"]
    assert counting.starts() == ["0"]
    first_id = first.communicate()[0].strip()
    assert out.splitlines()[0] == first_id


def test_a_driver_killed_before_it_wrote_the_job_down_makes_no_second_one(work: Workplace) -> None:
    counting = Counting(work, "d")
    first = work.driver(DRIVER, 60, "unrecorded")
    assert first.wait(30) == -signal.SIGKILL
    assert work.names() == ["d"]
    (unknown,) = work.lab.jobs()
    second = work.driver(DRIVER, 60, "waits")
    until(lambda: counting.starts())
    until(lambda: work.names() == ["d"])
    assert work.lab.run("squeue", "-h", "-t", "all", "-j", unknown, "-o", "%T") == "CANCELLED\n"
    counting.gate.touch()
    assert "through at start 0" in second.communicate(timeout=30)[0]
    assert counting.starts() == ["0"]


def test_jobs_end_with_ctrl_c_and_soon_after_a_killed_driver(work: Workplace) -> None:
    counting = Counting(work, "d")
    driver = work.driver(DRIVER, 3, "waits")
    until(lambda: counting.starts())
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.communicate(timeout=30)[0].splitlines()[1:] == ["cancelled"]
    assert work.lab.jobs() == []
    again = work.driver(DRIVER, 3, "waits")
    until(lambda: len(counting.starts()) == 2)
    again.kill()
    assert until(lambda: not work.lab.jobs(), seconds=20) > 1


def test_a_job_whose_driver_went_while_it_queued_does_not_run(work: Workplace) -> None:
    counting = Counting(work)
    lease = Lease(work.path("lease"), every=0.5).start()
    held = work.profile(sbatch={"hold": True}, lease_seconds=2)
    job = work.submit(
        functions.count_up, counting.notes, counting.gate, counting.counter, cluster=held,
        lease=lease,
    )  # fmt: skip
    lease.stop()
    time.sleep(3)
    released = time.monotonic()
    work.lab.run("scontrol", "release", job.job_id)
    until(lambda: not work.lab.jobs(), seconds=8)
    assert time.monotonic() - released < 8
    assert counting.starts() == []
    assert "ran out before this job started" in job.logs()[1].read_text()


def test_a_requeued_job_goes_on_and_only_its_last_start_counts(work: Workplace) -> None:
    """By an administrator, and by the signal that comes before a time limit."""
    by_hand, by_signal = Counting(work, "hand"), Counting(work, "signal")
    jobs = [by_hand.submit(), by_signal.submit()]
    limited = Counting(work, "limited").submit(Resources())
    work.lab.run("scontrol", "requeue", jobs[0].job_id)
    work.lab.run("scancel", "--signal=USR2", jobs[1].job_id, limited.job_id)
    with pytest.raises(JobTimeoutError, match="reached its time limit"):
        limited.result(poll=0.1)
    until(lambda: by_hand.starts() == by_signal.starts() == ["0", "1"])
    for counting, job in zip((by_hand, by_signal), jobs, strict=True):
        assert job.state() == "running"
        counting.gate.touch()
        assert job.result(poll=0.1) == "through at start 1"
        assert counting.counter.read_text() == "1"
        assert job.status().restarts == 1


@pytest.mark.parametrize("partition", ["low", "kill"])  # with and without time to leave
def test_preemption_is_waited_through_or_said(work: Workplace, partition: str) -> None:
    lower = work.profile(partition=partition)
    goes_on, cannot = Counting(work, "goes-on"), Counting(work, "cannot")
    half = Resources(nodes=2, cpus=4)
    jobs = [
        goes_on.submit(half.model_copy(update={"checkpointable": True}), cluster=lower),
        cannot.submit(half, cluster=lower),
    ]
    high = work.submit(
        functions.echo, "high", key="high", resources=Resources(nodes=4, cpus=4),
        cluster=work.profile(partition="high"),
    )  # fmt: skip
    assert high.result(poll=0.1) == "high"
    with pytest.raises(JobPreemptedError, match="give its place"):
        jobs[1].result(poll=0.1)
    until(lambda: goes_on.starts().count("1") == 2)
    goes_on.gate.touch()
    assert jobs[0].result(poll=0.1) == "through at start 1"


@pytest.mark.slow
def test_of_two_copies_only_the_newer_one_counts(work: Workplace) -> None:
    """The node's daemon dies: Slurm starts the job elsewhere while the first copy still runs."""
    counting = Counting(work)
    job = counting.submit()
    node = job.status().node
    work.lab.kill(f"slurmd-{node}")
    work.lab.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    assert job.state() in {"queued", "running"}
    until(lambda: counting.starts() == ["0", "1"], seconds=60)
    old, new = (int(line.split()[2]) for line in lines(counting.notes))
    until(lambda: not is_running(old), seconds=15)
    assert is_running(new)
    counting.gate.touch()
    assert job.result(poll=0.1) == "through at start 1"
    assert counting.counter.read_text() == "1"


@pytest.mark.slow
def test_slurms_controller_may_go_and_come_back(
    work: Workplace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    counting = Counting(work)
    job = counting.submit()
    work.lab.kill("slurmctld", signal.SIGTERM)

    def on_poll() -> None:
        if "Slurm answers again" in caplog.text:
            counting.gate.touch()
        elif "Slurm does not answer" in caplog.text:
            work.lab.start_daemon("slurmctld")

    assert job.result(poll=0.1, on_poll=on_poll) == "through at start 0"
    assert caplog.text.count("Slurm does not answer") == 1
    assert caplog.text.count("Slurm answers again") == 1


@pytest.mark.slow
def test_a_job_that_starts_while_slurms_controller_is_away_waits_for_it(work: Workplace) -> None:
    begun = work.path("begun")
    cluster = work.profile(setup=(f"touch {begun}", "sleep 1"))
    job = work.submit(functions.echo, "through", cluster=cluster)
    until(begun.exists)
    work.lab.kill("slurmctld", signal.SIGTERM)
    time.sleep(13)  # longer than srun asks for it
    work.lab.start_daemon("slurmctld")
    assert job.result(poll=0.1) == "through"


@pytest.mark.slow
def test_cancelling_works_without_slurms_controller(work: Workplace) -> None:
    counting = Counting(work)
    job = counting.submit()
    work.lab.kill("slurmctld", signal.SIGTERM)
    job.cancel()
    pid = int(lines(counting.notes)[0].split()[2])
    until(lambda: not is_running(pid), seconds=15)
    work.lab.heal()
    assert job.state() == "cancelled"


def test_without_accounting_ends_are_noticed_too(
    on_bare_lab: SlurmLab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Said once a process, perhaps in an earlier test.
    slurm_command._has_accounting.cache_clear()
    work = Workplace(on_bare_lab, tmp_path)
    notes = work.path("pids")
    cancelled = work.submit(functions.start_stray_child, notes, key="cancelled")
    forgotten = work.submit(functions.start_stray_child, notes, key="forgotten")
    killed = work.submit(functions.kill_itself, key="killed")
    until(lambda: len(lines(notes)) == 2)
    on_bare_lab.run("scancel", cancelled.job_id)
    began = time.monotonic()
    with pytest.raises(JobCancelledError, match="Slurm does not say whom"):
        cancelled.result(poll=0.1)
    with pytest.raises(JobCrashedError):
        killed.result(poll=0.1)
    assert time.monotonic() - began < 30
    assert caplog.text.count("keeps no accounting") == 1
    forgotten.cancel()
    assert forgotten.state() == "cancelled"


@pytest.mark.slow
def test_at_the_time_limit_one_goes_on_and_the_other_says_so(work: Workplace) -> None:
    """Slurm looks at limits once a minute, so this takes some."""
    goes_on, cannot = Counting(work, "goes-on"), Counting(work, "cannot")
    short = work.profile(minutes=1)
    jobs = [goes_on.submit(cluster=short), cannot.submit(Resources(), cluster=short)]
    with pytest.raises(JobTimeoutError, match="`minutes`"):
        jobs[1].result(poll=0.5)
    until(lambda: goes_on.starts() == ["0", "1"], seconds=180)
    goes_on.gate.touch()
    assert jobs[0].result(poll=0.5) == "through at start 1"
