"""A fleet on a real Slurm: more asked than there is room, cancelled, queued again, orphaned."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.endpoint import Endpoint, registered
from infra.engines import ServeSpec
from infra.fleet import Fleet, FleetPlan
from infra.fleet_cli import main
from tests.cluster.slurm_lab import SlurmLab
from tests.cluster.workplace import Workplace, until
from tests.engines.programs import program

# Two nodes of four cores: room for two instances of four.
CPUS, NODES_LEFT_OUT = 4, "node[3-4]"


@pytest.fixture
def work(on_lab: SlurmLab, tmp_path: Path) -> Iterator[Workplace]:
    yield Workplace(on_lab, tmp_path)
    on_lab.cancel_all()


def make_plan(work: Workplace, instances: int) -> FleetPlan:
    serve = ServeSpec(engine="vllm", model="some/model", executable=program(work.root, "vllm"))
    return FleetPlan(name="lab", serve=serve, instances=instances, cpus=CPUS, minutes=10)


def make_fleet(work: Workplace, plan: FleetPlan) -> Fleet:
    cluster = work.profile(exclude=NODES_LEFT_OUT)
    return Fleet(plan, cluster, work.root / "work" / "fleets" / plan.name, work.jobs)


def answers(fleet: Fleet, endpoint: Endpoint) -> bool:
    headers = {"Authorization": f"Bearer {fleet.key}"}
    return httpx.get(f"{endpoint.url}/v1/models", headers=headers).status_code == 200


def states(fleet: Fleet) -> dict[str, str]:
    return {each.name: each.state for each in fleet.states()}


def test_it_serves_with_less_room_than_asked_and_mends_what_is_lost(work: Workplace) -> None:
    with make_fleet(work, make_plan(work, 3)) as fleet:
        fleet.wait_ready()
        assert answers(fleet, fleet.endpoints()[0])
        fleet.wait_ready(2)
        assert sorted(states(fleet).values()) == ["queued", "ready", "ready"]
        (queued,) = [each for each in fleet.states() if each.state == "queued"]
        assert queued.note == "Resources"
        first, second = fleet.endpoints()

        # Somebody cancels one: the queued one takes its room, and it is asked for again.
        work.lab.run("scancel", first.job_id)
        until(lambda: first.url not in {each.url for each in fleet.endpoints()}, 20)
        until(lambda: states(fleet)[queued.name] == "ready", 60)
        until(lambda: states(fleet)[first.instance] == "queued")
        assert fleet.states()[int(first.instance)].attempt == 2
        assert second in fleet.endpoints()

        # One is queued again, as by preemption: the same job comes back at another address.
        fleet.scale(2)
        until(lambda: len(fleet.states()) == 2, 30)
        work.lab.run("scontrol", "requeue", second.job_id)
        until(lambda: second.url not in {each.url for each in fleet.endpoints()}, 20)
        until(lambda: len(fleet.endpoints()) == 2, 90)
        (back,) = [each for each in fleet.endpoints() if each.instance == second.instance]
        assert back.job_id == second.job_id
        assert back.started > second.started
        assert answers(fleet, back)
        (view,) = [each for each in fleet.states() if each.name == second.instance]
        assert (view.attempt, view.restarts) == (1, 1)
        assert view.node.startswith("node")
    assert work.lab.jobs() == []
    assert registered(fleet.files.folder) == []
    until(lambda: not work.lab.processes_of_jobs())


DRIVER = """
import sys, time
from pathlib import Path
from infra.cluster import ClusterConfig
from infra.fleet import Fleet, FleetPlan
root, plan, cluster = Path(sys.argv[1]), *sys.argv[2:]
plan = FleetPlan.model_validate_json(plan)
cluster = ClusterConfig.model_validate_json(cluster)
with Fleet(plan, cluster, root / "work" / "fleets" / plan.name, root / "work" / "jobs") as fleet:
    fleet.wait_ready(2)
    print("ready", flush=True)
    time.sleep(600)
"""


def killed_driver(work: Workplace, plan: FleetPlan) -> None:
    cluster = work.profile(exclude=NODES_LEFT_OUT)
    driver = work.driver(DRIVER, plan.model_dump_json(), cluster.model_dump_json())
    assert driver.stdout is not None
    assert driver.stdout.readline() == "ready\n", driver.communicate()[1]
    driver.kill()
    driver.communicate()


@pytest.mark.slow
def test_a_killed_drivers_fleet_is_joined_or_ends_itself(work: Workplace) -> None:
    plan = make_plan(work, 2)
    killed_driver(work, plan)
    jobs = sorted(work.lab.jobs())
    folder = work.root / "work" / "fleets" / "lab"
    before, key = registered(folder), (folder / "key").read_text()
    assert len(before) == 2
    with make_fleet(work, plan) as fleet:
        fleet.wait_ready(2)
        assert list(fleet.endpoints()) == before
        assert fleet.key == key
        assert sorted(work.lab.jobs()) == jobs
    assert work.lab.jobs() == []

    killed_driver(work, plan)
    killed = time.monotonic()
    jobs = work.lab.jobs()
    work.lab.wait_for_no_jobs(60)
    assert time.monotonic() - killed < 60
    until(lambda: not work.lab.processes_of_jobs())
    shown = "sacct", "-n", "-X", "-P", "-o", "State,ExitCode", "-j", ",".join(jobs)
    until(lambda: set(work.lab.run(*shown).split()) == {"COMPLETED|0:0"}, 15)
    # Nobody is left who would have to be told; the command says so and does nothing.
    assert main(["down", "--workspace", str(work.root / "work")]) == 0
