from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.cluster import slurm_lab
from tests.cluster.lab_guard import COOKIE, lab_processes
from tests.cluster.slurm_lab import LabError, SlurmLab, missing

ROOT = Path(__file__).resolve().parents[2]


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def wrap(lab: SlurmLab, command: str, *options: str) -> str:
    return lab.run("sbatch", "--parsable", "-o", "/dev/null", *options, "--wrap", command).strip()


def state(lab: SlurmLab, job: str) -> str:
    return lab.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").strip()


def test_jobs_get_nodes_and_gpus_and_are_accounted_for(on_lab: SlurmLab) -> None:
    hosts = on_lab.run("srun", "-N4", "printenv", "SLURMD_NODENAME").split()
    assert sorted(hosts) == ["node1", "node2", "node3", "node4"]
    seen = on_lab.run("srun", "--gres=gpu:fake:2", "printenv", "CUDA_VISIBLE_DEVICES")
    assert seen.strip() == "0,1"
    assert "COMPLETED" in on_lab.run("sacct", "-nXao", "state")


def test_without_accounting_sacct_knows_nothing(on_bare_lab: SlurmLab) -> None:
    assert (
        on_bare_lab.run("srun", "-N2", "printenv", "SLURM_CONF").split()
        == [os.environ["SLURM_CONF"]] * 2
    )
    with pytest.raises(LabError, match="accounting storage is disabled"):
        on_bare_lab.run("sacct")


def test_the_two_labs_do_not_see_each_other(lab: SlurmLab, bare_lab: SlurmLab) -> None:
    # Earlier tests may have left something in the queue.
    lab.cancel_all()
    bare_lab.cancel_all()
    job = wrap(bare_lab, "sleep 60")
    assert bare_lab.jobs() == [job]
    assert lab.jobs() == []
    bare_lab.cancel_all()


def test_accounts_are_enforced(on_lab: SlurmLab) -> None:
    with pytest.raises(LabError, match="Invalid account"):
        wrap(on_lab, "true", "-A", "nobodys")
    with pytest.raises(LabError, match="Invalid qos"):
        wrap(on_lab, "true", "--qos=nobodys")
    wrap(on_lab, "true", "-A", "research", "--qos=short")
    on_lab.wait_for_no_jobs()


def test_a_job_of_low_priority_makes_way_and_comes_back(on_lab: SlurmLab) -> None:
    low = wrap(on_lab, "sleep 60", "-p", "kill", "--requeue", "-N4", "--exclusive")
    until(lambda: state(on_lab, low) == "RUNNING")
    high = wrap(on_lab, "sleep 2", "-p", "high", "-N4", "--exclusive")
    until(lambda: state(on_lab, high) == "RUNNING")
    assert state(on_lab, low) == "PENDING"
    until(lambda: state(on_lab, low) == "RUNNING", 60)
    on_lab.cancel_all()


# How soon a controller takes a node back is its own affair, and was more than a minute.
@pytest.mark.slow
def test_killed_daemons_come_back(on_lab: SlurmLab) -> None:
    old = on_lab.pid("slurmctld"), on_lab.pid("slurmd-node1")
    on_lab.kill("slurmctld")
    on_lab.kill("slurmd-node1", signal.SIGTERM)
    assert not any(psutil.pid_exists(pid) for pid in old)
    on_lab.heal()
    assert on_lab.run("srun", "-w", "node1", "printenv", "SLURMD_NODENAME").strip() == "node1"


@pytest.mark.slow
def test_processes_of_jobs_are_found_even_when_their_slurmd_is_gone(on_lab: SlurmLab) -> None:
    job = wrap(on_lab, "sleep 4321", "-w", "node2", "--export=NONE")
    # Slurm calls a job RUNNING a moment before anything runs.
    until(lambda: "sleep 4321" in on_lab.processes_of_jobs())
    on_lab.kill("slurmd-node2")
    assert "sleep 4321" in on_lab.processes_of_jobs()
    assert state(on_lab, job) == "RUNNING"
    on_lab.heal()
    on_lab.cancel_all()
    until(lambda: not on_lab.processes_of_jobs())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_owner_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout
    folder = Path(owner.stdout.readline().strip())
    assert len(lab_processes(folder)) >= 6  # three daemons, a slurmstepd, a job, a driver
    owner.send_signal(how)
    owner.wait()
    until(lambda: not lab_processes(folder) and not folder.exists())
    # A job without the cookie, and a driver that has it.
    pids = [int(file.read_text()) for file in tmp_path.glob("*.pid")]
    assert len(pids) == 2
    assert not any(_lives(pid) for pid in pids)
    assert not _with_files_in(folder)


OWNER = textwrap.dedent(
    """
    import os, subprocess, sys, time
    from pathlib import Path
    from tests.cluster.slurm_lab import SlurmLab
    notes = Path(sys.argv[1])
    lab = SlurmLab(nodes=1, accounting=False).start()
    job = f"echo $$ > {notes}/job.pid; sleep 99"
    lab.run("sbatch", "-o", "/dev/null", "--export=NONE", "--wrap", job)
    env = os.environ | lab.environment
    driver = subprocess.Popen(["sleep", "99"], env=env, start_new_session=True)
    (notes / "driver.pid").write_text(str(driver.pid))
    while not ((notes / "job.pid").exists() and (notes / "job.pid").read_text().strip()):
        time.sleep(0.1)
    print(lab.folder, flush=True)
    time.sleep(99)
    """
)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _with_files_in(folder: Path) -> list[str]:
    """Return who has a file of the lab open, also one that is removed: such as a slurmstepd."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()).startswith(f"{folder}/"):
                found.append(str(link))
        except OSError:
            continue
    return found


def test_a_lab_that_cannot_start_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = slurm_lab.write_conf

    def with_a_fault(layout: slurm_lab.Layout) -> None:
        broken(layout)
        layout.conf.write_text(layout.conf.read_text() + "NoSuchKey=1\n")

    monkeypatch.setattr(slurm_lab, "write_conf", with_a_fault)
    lab = SlurmLab(nodes=1, accounting=False)
    with pytest.raises(LabError, match=r"slurmctld has ended(.|\n)*NoSuchKey"):
        lab.start()
    assert not lab_processes(lab.folder)
    assert not lab.folder.exists()


def test_a_person_s_shell_is_spared(on_bare_lab: SlurmLab) -> None:
    outside = {name: value for name, value in os.environ.items() if name != COOKIE}
    shell = subprocess.Popen(["sleep", "30"], env=outside)
    try:
        assert shell.pid not in {each.pid for each in lab_processes(on_bare_lab.folder)}
    finally:
        shell.kill()
        shell.wait()


def test_where_slurm_is_missing_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert missing() == ""
    monkeypatch.setattr(slurm_lab, "_PATH", "/nowhere")
    said = missing()
    assert "no munged, " in said
    assert "`apt-get install slurm-wlm munge slurmdbd mariadb-server`" in said
    assert len(said.splitlines()) == 1


def test_one_command_runs_in_a_lab_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "tests/cluster/slurm_lab.py", "--nodes=1", "--no-accounting", "--",
         "sh", "-c", "sinfo -hN -p main -o %N; exit 3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("node1\n", 3)
