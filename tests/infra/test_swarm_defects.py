"""llm-swarm 0.1.1's observed defects, by their numbers; those that take a Slurm to show are in
tests/cluster/test_swarm_defects_on_slurm.py."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import llm_swarm
import psutil
import pytest

from ccai_core.errors import ConfigError, FleetError, JobRefusedError
from infra import fleet_jobs
from infra.processes import end_processes, job_processes
from infra.proxy import COUNTS
from infra.swarm import Swarm
from tests.engines.programs import program
from tests.infra.swarms import base, chat, config, profile, template, until


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    end_processes(functools.partial(processes, tmp_path), grace=0)


def processes(place: Path) -> list[psutil.Process]:
    attempts = place.glob("**/jobs/*/attempt-*")
    return [each for attempt in attempts for each in job_processes(str(attempt.resolve()))]


def fails(swarm: Swarm, said: str) -> str:
    """Enter the swarm; it must raise, run no body, and leave nothing. Return what it says."""
    with pytest.raises(FleetError, match=said) as caught, swarm:
        pytest.fail("the body has run")
    return str(caught.value)


def test_defect_01_a_slow_server_is_waited_for(place: Path) -> None:
    with Swarm(config(place, "--standin-start=3")) as swarm:
        assert chat(swarm)


def interrupted(swarm: Swarm, place: Path) -> None:
    """Enter the swarm, and press Ctrl-C when its engine has been up for a while."""

    def press() -> None:
        until(lambda: [each for each in place.glob("**/instances/0.log") if each.read_text()], 60)
        if not over.wait(3):
            os.kill(os.getpid(), signal.SIGINT)

    over = threading.Event()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=press).start()
    try:
        with pytest.raises(KeyboardInterrupt), swarm:
            pytest.fail("the body has run")
    finally:
        over.set()
        signal.signal(signal.SIGINT, handler)
    assert processes(place) == []


def test_defect_02_what_goes_wrong_is_raised_and_the_body_does_not_run(place: Path) -> None:
    poor = profile(place, limits="{max_jobs: 8, max_gpus: 0}")
    with (
        pytest.raises((ConfigError, JobRefusedError), match="GPU"),
        Swarm(config(place, cluster=poor, gpus=1)),
    ):
        pytest.fail("the body has run")
    interrupted(Swarm(config(place, "--standin-start=600")), place)


def test_defect_03_several_instances_need_neither_docker_nor_sudo(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sudo", "docker", "nginx"):
        tool = place / "tools" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\ntouch {place}/called\nexit 1\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(place / "tools"), prepend=os.pathsep)
    with Swarm(config(place, instances=2)) as swarm:
        until(lambda: len(swarm.endpoints) == 2)
        for _ in range(4):
            chat(swarm)
        with_key = {"Authorization": f"Bearer {swarm.key}"}
        counts = [httpx.get(url + COUNTS, headers=with_key).json() for url in swarm.endpoints]
        assert all(each["requests"] >= 1 for each in counts)
    assert not (place / "called").exists()


@pytest.mark.slow
def test_defect_04_a_job_that_exits_early_ends_the_wait(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_jobs, "_MAX_RESTARTS", 0)
    path = template(place, before="echo 'no such GPU'; exit 3")
    asked = config(place, inference_engine="tgi", slurm_template_path=path, max_length=64)
    said = fails(Swarm(asked), "no instance stays up")
    assert "no such GPU" in said
    assert "exit code 3" in said


def test_defect_06_two_drivers_of_the_same_second_do_not_meet(place: Path) -> None:
    asked = config(place)
    first, second = Swarm(asked), Swarm(asked)
    with first, second:
        assert first.fleet.files.folder != second.fleet.files.folder
        assert first.key != second.key
        second.cleanup()
        assert chat(first)


def test_defect_11_a_server_that_says_503_is_not_ready(place: Path) -> None:
    interrupted(Swarm(config(place, "--standin-503=600")), place)


@pytest.mark.slow
def test_defect_12_a_404_is_no_answer_and_the_wait_has_an_end(place: Path) -> None:
    asked = config(place, "--standin-no-chat", ready_minutes=0.05)
    fails(Swarm(asked), "gives 404")


EVIL = ("x; touch pwned #", "$(touch pwned)", "`touch pwned`", "x\ntouch pwned", "x' touch pwned '")


def test_defect_14_names_are_data_and_nothing_of_them_runs(place: Path) -> None:
    path = template(place)
    for evil in EVIL:
        for changes in ({"model": evil}, {"revision": evil}):
            asked = config(
                place, inference_engine="tgi", slurm_template_path=path, max_length=64, **changes
            )
            with pytest.raises(ConfigError, match="cannot go into the shell script"):
                Swarm(asked)
    evil = "x' \" ; touch pwned; $(touch pwned) `touch pwned` #"
    with Swarm(config(place, model=evil)) as swarm:
        assert chat(swarm, model=evil), "without a template it is served under this very name"
        assert httpx.get(f"{base(swarm)}/v1/models").json()["data"][0]["id"] == evil
    assert list(place.glob("**/pwned")) == []


def test_defect_15_no_template_is_needed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(Path(llm_swarm.__file__).parent.glob("**/*.slurm")) == []
    program(place, "tgi")
    monkeypatch.setenv("PATH", str(place / "bin"), prepend=os.pathsep)
    asked = config(place, inference_engine="tgi", executable=None)
    asked.slurm_template_path = type(asked).slurm_template_path  # as a script has it that says none
    began = time.monotonic()
    with Swarm(asked) as swarm:
        assert chat(swarm)
        assert time.monotonic() - began < 30
