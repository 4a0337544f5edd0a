"""llm-swarm 0.1.1's observed defects that take a Slurm to show, by their numbers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infra.swarm import FleetConfig, Swarm
from tests.cluster.slurm_lab import SlurmLab
from tests.cluster.workplace import Workplace
from tests.infra.swarms import chat, config, template, until

# Each waits for Slurm to notice something; the other defects are in tests/infra.
pytestmark = pytest.mark.slow

CPUS, NODES_LEFT_OUT = 4, "node[3-4]"


@pytest.fixture
def work(on_lab: SlurmLab, tmp_path: Path) -> Iterator[Workplace]:
    yield Workplace(on_lab, tmp_path)
    on_lab.cancel_all()


def profile(work: Workplace, **changes: Any) -> str:
    """Two nodes of four cores: room for two instances of four."""
    file = work.root / "lab.yaml"
    cluster = work.profile(exclude=NODES_LEFT_OUT, **changes)
    file.write_text(cluster.model_dump_json(exclude_none=True, indent=2))
    return str(file)


def asked(work: Workplace, **changes: Any) -> FleetConfig:
    said = {"cluster": profile(work), "cpus": CPUS, "minutes": 10, **changes}
    return config(work.root, **said)


def replace_command(
    work: Workplace, monkeypatch: pytest.MonkeyPatch, name: str, fails: str
) -> Path:
    """Let a command of Slurm fail while a file is there; return the file."""
    flag, count = work.root / f"{name}-fails", work.root / f"{name}-calls"
    found = work.lab.run("sh", "-c", f"command -v {name}").strip()
    tool = work.root / "tools" / name
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(
        f"#!/bin/sh\necho >> {count}\nif {fails.format(flag=flag, count=count)}; then\n"
        f"  echo '{name}: error: Invalid user id' >&2; exit 1\nfi\nexec {found} \"$@\"\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    return flag


def test_defect_05_it_does_not_wait_for_all(work: Workplace) -> None:
    with Swarm(asked(work, instances=3)) as swarm:
        assert chat(swarm)
        until(lambda: len(swarm.endpoints) == 2)
        until(lambda: [each.state for each in swarm.fleet.states()].count("queued") == 1)
        assert len(swarm.job_ids) == 3
        assert chat(swarm)
    assert work.lab.jobs() == []


DRIVER = """
import sys, time
from pathlib import Path
from infra.swarm import FleetConfig, Swarm
with Swarm(FleetConfig(**eval(sys.argv[2]))) as swarm:
    print("ready", flush=True)
    time.sleep(600)
"""


def test_defect_07_a_killed_or_terminated_driver_leaves_no_job(work: Workplace) -> None:
    said = vars(asked(work, cluster=profile(work, lease_seconds=15)))
    drivers = [work.driver(DRIVER, said), work.driver(DRIVER, said)]
    for driver in drivers:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n", driver.communicate()[1]
    assert len(work.lab.jobs()) == 2
    for driver, how in zip(drivers, (signal.SIGKILL, signal.SIGTERM), strict=True):
        driver.send_signal(how)
        driver.communicate(timeout=20)
    ended = time.monotonic()
    work.lab.wait_for_no_jobs(60)
    assert time.monotonic() - ended < 60
    until(lambda: not work.lab.processes_of_jobs())


def test_defect_08_a_second_submission_that_fails_leaves_nothing_behind(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_command(work, monkeypatch, "sbatch", "[ $(wc -l < {count}) -ge 2 ]")
    with Swarm(asked(work, instances=2)) as swarm:
        assert chat(swarm), "the first one works"
        until(lambda: any("Invalid user id" in each.note for each in swarm.fleet.states()))
        assert len(work.lab.jobs()) == 1
    assert work.lab.jobs() == []


def test_defect_09_an_instance_that_dies_is_noticed_and_replaced(work: Workplace) -> None:
    with Swarm(asked(work)) as swarm, ThreadPoolExecutor(1) as pool:
        url, (job_id,), address = swarm.endpoint, swarm.job_ids, swarm.endpoints
        running = pool.submit(chat, swarm, seconds=2.0)
        time.sleep(0.5)
        work.lab.run("scancel", "--signal=KILL", job_id)
        work.lab.run("scancel", job_id)
        assert running.result() == "a kind word", "asked again of the one that came instead"
        assert swarm.endpoint == url
        assert swarm.endpoints != address
        assert swarm.job_ids != [job_id]
    assert work.lab.jobs() == []


def test_defect_10_after_a_requeue_the_old_address_is_not_asked(work: Workplace) -> None:
    with Swarm(asked(work)) as swarm:
        job_ids, address = swarm.job_ids, swarm.endpoints
        work.lab.run("scontrol", "requeue", *job_ids)
        until(lambda: swarm.endpoints != address, 30)
        assert chat(swarm), "waits for the job's next start"
        assert swarm.job_ids == job_ids
        assert swarm.endpoints != address


def test_defect_13_a_failed_squeue_cancels_nothing(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = replace_command(work, monkeypatch, "squeue", "[ -e {flag} ]")
    with Swarm(asked(work)) as swarm:
        job_ids, address = swarm.job_ids, swarm.endpoints
        calls = work.root / "squeue-calls"
        flag.touch()
        before = len(calls.read_text())
        until(lambda: len(calls.read_text()) >= before + 2)
        assert chat(swarm)
        flag.unlink()
        before = len(calls.read_text())
        until(lambda: len(calls.read_text()) >= before + 2)
        assert work.lab.jobs() == job_ids
        assert (swarm.job_ids, swarm.endpoints) == (job_ids, address)
        assert chat(swarm)


def test_a_template_runs_as_it_is_with_what_it_asks_of_slurm(work: Workplace) -> None:
    # Its own `srun`, inside the step that the instance is.
    path = template(work.root, srun="srun --qos normal ")
    text = Path(path).read_text().replace("--cpus-per-task=1", "--cpus-per-task=2")
    Path(path).write_text(text.replace("--partition main", "--partition high"))
    made = asked(
        work, inference_engine="tgi", slurm_template_path=path, max_length=512, gpus=1, cpus=None
    )
    with Swarm(made) as swarm:
        assert chat(swarm)
        (job_id,) = swarm.job_ids
        shown = work.lab.run("squeue", "-h", "-j", job_id, "-o", "%P %C %b").split()
        assert shown[:2] == ["high", "2"]
        assert shown[2].endswith("gpu:1")
        assert work.lab.processes_of_jobs()
    assert work.lab.jobs() == []
    until(lambda: not work.lab.processes_of_jobs())
