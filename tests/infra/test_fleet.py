"""A fleet of stand-in engines on this machine: real jobs, real instances, real sockets."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from ccai_core.errors import ConfigError, FleetError, JobRefusedError
from infra import fleet_jobs
from infra.cluster import ClusterConfig, Limits
from infra.engines import ServeSpec
from infra.fleet import Fleet, FleetPlan
from infra.fleet_cli import main
from infra.processes import end_processes, job_processes
from tests.engines.programs import program

ROOT = Path(__file__).parents[2]
CLUSTER = ClusterConfig(name="test", kind="local", limits=Limits(max_jobs=8), lease_seconds=5)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A workspace; whatever still runs out of it is ended afterwards."""
    yield tmp_path
    for attempt in (tmp_path / "jobs").glob("*/attempt-*"):
        end_processes(functools.partial(job_processes, str(attempt.resolve())), grace=0)


def make_plan(place: Path, *options: str, **changes: Any) -> FleetPlan:
    serve = ServeSpec(
        engine="vllm", model="some/model", options=options,
        executable=program(place, "vllm"),
    )  # fmt: skip
    return FleetPlan(**{"name": "test", "serve": serve, "instances": 2, **changes})


def make_fleet(place: Path, plan: FleetPlan, cluster: ClusterConfig = CLUSTER) -> Fleet:
    return Fleet(plan, cluster, place / "fleets" / plan.name, place / "jobs")


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return found


def chat(fleet: Fleet, url: str) -> str:
    answer = httpx.post(
        f"{url}/v1/chat/completions", headers={"Authorization": f"Bearer {fleet.key}"}, timeout=20,
        json={"model": "some/model", "messages": [{"role": "user", "content": "Hi"}],
              "max_tokens": 3},
    )  # fmt: skip
    answer.raise_for_status()
    return str(answer.json()["choices"][0]["message"]["content"])


def processes(place: Path) -> list[psutil.Process]:
    attempts = (place / "jobs").glob("*/attempt-*")
    return [each for attempt in attempts for each in job_processes(str(attempt.resolve()))]


def test_it_serves_grows_mends_itself_shrinks_and_leaves_nothing(place: Path) -> None:
    with make_fleet(place, make_plan(place, instances=1)) as fleet:
        fleet.wait_ready()
        (first,) = fleet.endpoints()
        assert chat(fleet, first.url)
        assert oct((fleet.files.folder / "key").stat().st_mode & 0o777) == "0o600"
        fleet.scale(2)
        fleet.wait_ready(2)
        second = fleet.endpoints()[1]
        assert first.url != second.url

        psutil.Process(first.pid).kill()
        until(lambda: [each.url for each in fleet.endpoints()] == [second.url])
        fleet.wait_ready(2)
        assert first.url not in {each.url for each in fleet.endpoints()}
        assert fleet.endpoints()[1] == second, "the other one goes on"
        assert fleet.states()[0].attempt == 2
        assert all(chat(fleet, each.url) for each in fleet.endpoints())

        stays = fleet.endpoints()[0]
        fleet.scale(1)
        until(lambda: fleet.endpoints() == (stays,))
        until(lambda: [each.name for each in fleet.states()] == ["0"])
        assert second.pid not in {each.pid for each in processes(place)}
        with pytest.raises(ConfigError, match="at least one"):
            fleet.scale(0)
    assert processes(place) == []
    assert list((fleet.files.folder / "endpoints").glob("*.json")) == []


def test_one_that_is_too_many_finishes_what_it_is_at(place: Path) -> None:
    with make_fleet(place, make_plan(place)) as fleet:
        fleet.wait_ready(2)
        body = {"model": "some/model", "messages": [], "max_tokens": 4, "seconds": 1.0}

        def ask(url: str) -> int:
            headers = {"Authorization": f"Bearer {fleet.key}"}
            answer = httpx.post(
                f"{url}/v1/chat/completions", headers=headers, json=body, timeout=20
            )
            return answer.status_code

        urls = [each.url for each in fleet.endpoints()]
        with ThreadPoolExecutor() as threads:
            calls = [threads.submit(ask, url) for url in urls]
            time.sleep(0.5)
            fleet.scale(1)
            assert [call.result() for call in calls] == [200, 200]
        until(lambda: len(fleet.states()) == 1)
    assert processes(place) == []


def test_when_all_die_it_ends_with_the_servers_own_words(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_jobs, "_MAX_RESTARTS", 0)
    began = time.monotonic()
    with make_fleet(place, make_plan(place, "--standin-exit=7", instances=1)) as fleet:
        with pytest.raises(FleetError, match="no instance stays up; 3 ended in a row") as caught:
            fleet.wait_ready()
        with pytest.raises(FleetError):
            fleet.endpoints()
    assert "settings:" in str(caught.value), "the tail of the engine's log"
    assert time.monotonic() - began < 60
    assert processes(place) == []


def test_one_place_is_enough_to_begin(place: Path) -> None:
    narrow = CLUSTER.model_copy(update={"limits": Limits(max_jobs=1)})
    with make_fleet(place, make_plan(place), narrow) as fleet:
        fleet.wait_ready()
        assert [each.state for each in fleet.states()] == ["ready", "waiting"]
        began = time.monotonic()
    assert time.monotonic() - began < 20
    assert processes(place) == []


def test_a_plan_that_the_cluster_refuses_ends_it_at_once(place: Path) -> None:
    poor = CLUSTER.model_copy(update={"limits": Limits(max_jobs=8, max_gpus=0)})
    plan = make_plan(place)
    plan = plan.model_copy(update={"serve": plan.serve.model_copy(update={"gpus": 1})})
    with make_fleet(place, plan, poor) as fleet, pytest.raises((JobRefusedError, ConfigError)):
        fleet.wait_ready()


def test_what_an_engine_cannot_do_is_refused_before_anything_is_submitted(place: Path) -> None:
    plan = make_plan(place)
    serve = plan.serve.model_copy(update={"engine": "tgi", "dtype": "float32"})
    with pytest.raises(ConfigError, match="float16 or bfloat16"):
        make_fleet(place, plan.model_copy(update={"serve": serve}))


DRIVER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from infra.cluster import ClusterConfig
    from infra.fleet import Fleet, FleetPlan

    place = Path(sys.argv[1])
    plan = FleetPlan.model_validate_json(sys.argv[2])
    cluster = ClusterConfig.model_validate_json(sys.argv[3])
    with Fleet(plan, cluster, place / "fleets" / plan.name, place / "jobs") as fleet:
        fleet.wait_ready(plan.instances)
        print("ready", flush=True)
        time.sleep(600)
""")


def killed_driver(place: Path, plan: FleetPlan, cluster: ClusterConfig = CLUSTER) -> None:
    """Start a fleet in a program of its own, and kill that when the fleet is ready."""
    arguments = [str(place), plan.model_dump_json(), cluster.model_dump_json()]
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "ready\n"
    driver.send_signal(signal.SIGKILL)
    driver.wait()


def test_after_a_kill_the_next_driver_goes_on_with_what_lives(place: Path) -> None:
    plan = make_plan(place)
    killed_driver(place, plan)
    folder = place / "fleets" / "test"
    key = (folder / "key").read_text()
    registered = {file.name: file.read_text() for file in (folder / "endpoints").iterdir()}
    other = plan.model_copy(update={"ready_minutes": 5.0})
    with pytest.raises(FleetError, match=r"2 instances of another plan are alive: ready_minutes"):
        make_fleet(place, other).__enter__()
    with make_fleet(place, plan) as fleet:
        fleet.wait_ready(2)
        with pytest.raises(FleetError, match="is driven by process"):
            make_fleet(place, plan).__enter__()
        time.sleep(6)  # longer than the lease: it is renewed
        assert len(fleet.endpoints()) == 2
        assert fleet.key == key
        assert {f.name: f.read_text() for f in (folder / "endpoints").iterdir()} == registered
        assert [each.attempt for each in fleet.states()] == [1, 1]
    assert processes(place) == []
    # Nothing of it lives any more, so the folder is free for another plan.
    with make_fleet(place, other):
        assert json.loads(read(folder / "plan.json"))["plan"]["ready_minutes"] == 5.0


def test_after_a_kill_without_a_next_driver_nothing_is_left(place: Path) -> None:
    killed_driver(place, make_plan(place, instances=1))
    killed = time.monotonic()
    until(lambda: processes(place) == [], seconds=25)
    assert time.monotonic() - killed < 20
    outcomes = [file.read_bytes() for file in (place / "jobs").glob("*/attempt-1/outcome*")]
    assert len(outcomes) == 1, "it ended in order"


# --- the command


def command(place: Path, *words: str) -> int:
    return main([*words, "--workspace", str(place)])


def test_the_commands(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = place / "mine.yaml"
    executable = program(place, "vllm")
    profile.write_text(
        f"kind: local\nlimits: {{max_jobs: 4}}\nfleet: {{engine: vllm, executable: {executable}}}"
    )
    up = ["up", "--cluster", str(profile), "--model", "some/model", "--workspace", str(place)]
    assert main([*up, "--dry-run"]) == 0
    assert "no GPU hours" in capsys.readouterr().out
    assert not (place / "fleets" / "model").exists()
    driver = subprocess.Popen(
        [sys.executable, "-m", "infra.fleet", *up], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    folder = place / "fleets" / "model"
    try:
        until(lambda: (folder / "router.json").exists() and "ready" in read(folder / "state.json"))
        url, key = json.loads(read(folder / "router.json"))["url"], read(folder / "key")
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert command(place, "status") == 0
        shown = capsys.readouterr().out
        assert "1 of 1 ready" in shown
        assert url in shown
        assert command(place, "scale", "0") == 2
        assert command(place, "scale", "2") == 0
        until(lambda: read(folder / "state.json").count('"ready"') == 2)
        assert command(place, "scale", "2", "--name", "other") == 2
        assert "there is no fleet 'other'" in capsys.readouterr().err
        assert command(place, "down") == 0
        out = driver.communicate(timeout=30)[0]
    finally:
        driver.kill()
    assert driver.returncode == 0
    assert f"curl {url}/v1/chat/completions" in out
    assert "$(cat " in out
    assert key not in out
    assert processes(place) == []
    assert command(place, "status") == 0
    assert "was ended" in capsys.readouterr().out
    assert command(place, "scale", "3") == 2
    assert "Nobody drives" in capsys.readouterr().err


def test_down_ends_a_fleet_whose_driver_is_gone(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = CLUSTER.model_copy(update={"lease_seconds": 60})
    killed_driver(place, make_plan(place, instances=1), patient)
    assert processes(place) != []
    assert command(place, "down") == 0
    assert "gone already" in capsys.readouterr().out
    assert processes(place) == []


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
