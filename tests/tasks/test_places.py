"""What a step that waits for its fleet says."""

from __future__ import annotations

from pathlib import Path

from ccai_core.engines import LocalEngines
from infra.cluster import ClusterConfig
from infra.fleet_plan import FleetFiles, InstanceState, InstanceView, this_driver
from infra.jobs import Resources
from tasks.places import Place

CLUSTER = ClusterConfig(name="test", kind="local")


def place(fleets: Path | None) -> Place:
    return Place(CLUSTER, "driver", Resources(), LocalEngines(), fleets=fleets)


def say(fleets: Path, name: str, *states: InstanceState, ended: bool = False) -> None:
    views = tuple(InstanceView(name=str(n), state=state) for n, state in enumerate(states))
    state = this_driver(len(views), views).model_copy(update={"ended": ended})
    (fleets / name).mkdir(parents=True, exist_ok=True)
    FleetFiles(fleets / name).write_state(state)


def test_it_tells_how_its_instances_are_until_all_are_ready(tmp_path: Path) -> None:
    assert place(tmp_path).lacks() == ""
    say(tmp_path, "one", "queued", "queued", "starting")
    assert place(tmp_path).lacks() == "fleet: 2 queued, 1 starting"
    say(tmp_path, "one", "ready", "ready", "ready")
    assert place(tmp_path).lacks() == ""


def test_it_tells_what_most_of_those_that_queue_wait_for(tmp_path: Path) -> None:
    notes = ("Priority", "Resources", "Resources")
    views = [InstanceView(name=str(n), state="queued", note=each) for n, each in enumerate(notes)]
    views.append(InstanceView(name="3", state="ready"))
    (tmp_path / "one").mkdir()
    FleetFiles(tmp_path / "one").write_state(this_driver(4, tuple(views)))
    assert place(tmp_path).lacks() == "fleet: 3 queued, 1 ready (Resources)"


def test_a_fleet_that_has_ended_says_nothing(tmp_path: Path) -> None:
    say(tmp_path, "one", "queued", ended=True)
    assert place(tmp_path).lacks() == ""


def test_a_step_without_a_fleet_lacks_nothing() -> None:
    assert place(None).lacks() == ""
