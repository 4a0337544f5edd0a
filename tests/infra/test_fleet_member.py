"""What a driver makes of what it sees: whose address counts, who is lost and when it is back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from ccai_core.errors import FleetError
from infra.cluster import ClusterConfig, FleetDefaults, load_cluster
from infra.endpoint import Endpoint
from infra.engines import ServeSpec
from infra.fleet_driver import Fleet
from infra.fleet_member import STEADY_S, Member
from infra.fleet_options import Up, make_plan
from infra.fleet_plan import FleetFiles, FleetPlan
from infra.jobs import JobStatus

SERVE = ServeSpec(engine="vllm", model="m")
RUNNING, QUEUED = JobStatus("running", node="node1"), JobStatus("queued", reason="Priority")


def member(number: int = 0) -> Member:
    made = Member(number)
    made.joined(SimpleNamespace(key="k", job_id="7", attempt=1))  # type: ignore[arg-type]
    return made


def address(port: int = 1, **other: Any) -> Endpoint:
    given: dict[str, Any] = {
        "instance": "0", "url": f"http://h:{port}", "model": "m", "engine": "vllm", "host": "h",
        "pid": port, "job_id": "7", "started": f"2026-01-01T00:00:0{port}", "key_id": "x",
    }  # fmt: skip
    return Endpoint(**given | other)


def test_an_address_counts_once_it_answers_and_while_its_job_runs() -> None:
    one = member()
    one.look(QUEUED, None, answers=False, now=0)
    assert (one.state, one.note) == ("queued", "Priority")
    one.look(RUNNING, None, answers=False, now=1)
    assert one.state == "starting"
    one.look(RUNNING, address(), answers=False, now=2)
    assert one.state == "starting", "registered, but nobody has seen it answer"
    one.look(RUNNING, address(), answers=True, now=3)
    assert (one.state, one.view().url) == ("ready", "http://h:1")
    one.look(RUNNING, address(), answers=False, now=4)
    assert one.state == "silent"
    one.look(RUNNING, address(), answers=True, now=5)
    assert one.state == "ready"
    one.look(JobStatus("lost"), address(), answers=True, now=6)
    assert one.is_over
    assert one.endpoint is None


def test_an_address_of_another_job_does_not_count() -> None:
    one = member()
    one.look(RUNNING, address(job_id="6"), answers=True, now=0)
    assert (one.state, one.endpoint) == ("starting", None)


@pytest.mark.parametrize("seen_in_the_queue", [True, False])
def test_after_a_requeue_only_a_new_address_counts(seen_in_the_queue: bool) -> None:
    one = member()
    one.look(RUNNING, address(1), answers=True, now=0)
    if seen_in_the_queue:
        one.look(QUEUED, address(1), answers=True, now=1)
        assert one.state == "queued"
    again = JobStatus("running", restarts=1)
    # The file is still there, and another server may have taken its port.
    one.look(again, address(1), answers=True, now=2)
    assert (one.state, one.endpoint) == ("starting", None)
    one.look(again, address(2), answers=True, now=3)
    assert (one.state, one.view().restarts) == ("ready", 1)
    assert one.view().url == "http://h:2"


def test_ready_minutes_count_from_each_start_and_not_from_the_queue() -> None:
    one = member()
    one.look(QUEUED, None, answers=False, now=0)
    assert not one.is_overdue(60, now=1e6)
    one.look(RUNNING, None, answers=False, now=100)
    assert not one.is_overdue(60, now=160)
    assert one.is_overdue(60, now=161)
    one.look(JobStatus("running", restarts=1), None, answers=False, now=200)
    assert not one.is_overdue(60, now=250)
    one.look(JobStatus("running", restarts=1), address(), answers=True, now=250)
    assert not one.is_overdue(60, now=1e6)


def test_pauses_grow_with_losses_in_a_row_and_are_shorter_in_need() -> None:
    def pauses(*, in_need: bool) -> list[float]:
        one, found = Member(0), []
        for _ in range(9):
            one.how = "It crashed.\nThe log."
            one.failed(100.0, in_need=in_need)
            found.append(one.due - 100.0)
        assert (one.note, one.how) == ("It crashed.", None)
        return found

    assert pauses(in_need=False) == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert pauses(in_need=True) == [0, 1, 2, 4, 8, 10, 10, 10, 10]


def test_losses_are_forgotten_after_steady_service() -> None:
    one = member()
    one.failures = 3
    one.look(RUNNING, address(), answers=True, now=0)
    one.look(RUNNING, address(), answers=True, now=STEADY_S - 1)
    assert one.failures == 3
    one.look(RUNNING, address(), answers=True, now=STEADY_S)
    assert one.failures == 0


def test_the_least_missed_leave_first(tmp_path: Path) -> None:
    plan = FleetPlan(name="f", serve=SERVE, instances=5)
    fleet = Fleet(plan, load_cluster("local"), tmp_path / "f", tmp_path / "jobs")
    states = ["ready", "ready", "starting", "queued", "queued"]
    for number, state in enumerate(states):
        fleet._members[number] = Member(number, state=state)  # type: ignore[arg-type]
    order = sorted(fleet._members.values(), key=fleet._least_missed)
    assert [each.number for each in order] == [4, 3, 2, 1, 0]


# --- plans and files


def test_plans_differ_in_what_instances_are_made_of() -> None:
    plan = FleetPlan(name="f", serve=SERVE, instances=2)
    more = FleetPlan(name="f", serve=SERVE, instances=8, min_instances=2)
    assert plan.differences(more) == []
    other = plan.model_copy(
        update={"serve": SERVE.model_copy(update={"dtype": "float32"}), "minutes": 5.0}
    )
    assert plan.differences(other) == [
        "minutes None is 5.0 there",
        "serve.dtype 'auto' is 'float32' there",
    ]
    with pytest.raises(ValidationError, match=r"min_instances \(3\) exceeds instances \(2\)"):
        FleetPlan(name="f", serve=SERVE, instances=2, min_instances=3)


@pytest.mark.parametrize("name", ["../x", "a b", "", "$(id)", "x/y", "-x"])
def test_a_fleets_name_is_a_file_name(name: str) -> None:
    with pytest.raises(ValidationError):
        FleetPlan(name=name, serve=SERVE)


def test_requests_to_the_driver_are_taken_once(tmp_path: Path) -> None:
    files = FleetFiles(tmp_path)
    assert (files.take_scale(), files.take_down()) == (None, False)
    files.ask_scale(3)
    files.ask_down()
    assert (files.take_scale(), files.take_down()) == (3, True)
    assert (files.take_scale(), files.take_down()) == (None, False)
    (tmp_path / "scale").write_text("lots")
    assert files.take_scale() is None
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(FleetError, match=r"state\.json cannot be read"):
        files.state()


def test_up_takes_from_the_profile_what_it_is_not_told() -> None:
    profile = ClusterConfig(
        name="p", kind="local", cpus=3, memory_gb=2.0,
        fleet=FleetDefaults(engine="vllm", instances=4, min_instances=2, executable="/opt/vllm",
                            options=("--x",), max_length=64),
    )  # fmt: skip
    plan = make_plan(Up(model="Org/My Model $(id)"), profile)
    assert plan.name == "my-model-id"
    assert (plan.instances, plan.min_instances, plan.cpus, plan.memory_gb) == (4, 2, 3, 2.0)
    assert (plan.serve.executable, plan.serve.options) == ("/opt/vllm", ("--x",))
    assert (plan.serve.model, plan.serve.served_name) == ("Org/My Model $(id)",) * 2
    other = make_plan(Up(model="m", engine="tgi", instances=1, name="n"), profile)
    assert (other.name, other.instances, other.min_instances) == ("n", 1, 1)
    assert (other.serve.executable, other.serve.options) == (None, ())


def test_a_folder_is_found_wherever_an_instance_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").mkdir()
    monkeypatch.chdir(tmp_path)
    plan = make_plan(Up(model="small"), ClusterConfig(name="p", kind="local"))
    assert (plan.serve.model, plan.serve.served_name) == (str(tmp_path / "small"), "small")
