"""An instance's life, as a process that gets real signals: ready, crashed, silent, drained."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from ccai_core.errors import ConfigError, FleetError
from infra.cluster import load_cluster
from infra.endpoint import key_id, make_key, registered
from infra.engines import ServeSpec
from infra.instance import InstanceSpec
from infra.ports import listen
from tests.engines.instances import ask, chat, endpoint_of, engine_pids, make_spec, running, until
from tests.engines.programs import program

# --- a good life ----------------------------------------------------------------------------------


def test_it_registers_serves_drains_and_returns(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, served_name="kind")
    with running(spec) as process:
        endpoint = endpoint_of(spec)
        key = (spec.fleet / "key").read_text()
        assert (endpoint.instance, endpoint.model, endpoint.engine) == ("0", "kind", "vllm")
        assert (endpoint.pid, endpoint.key_id) == (process.pid, key_id(key))
        assert endpoint.url.startswith("http://127.0.0.1:")
        assert chat(spec, endpoint)["usage"]["completion_tokens"] == 4
        counts = ask(spec, endpoint, "/ccai/counts")
        assert (counts["requests"], counts["completion_tokens"], counts["errors"]) == (1, 4, 0)

        answers: list[Any] = []
        asking = threading.Thread(
            target=lambda: answers.append(chat(spec, endpoint, max_tokens=10, seconds=0.2))
        )
        asking.start()
        until(lambda: ask(spec, endpoint, "/ccai/counts")["in_flight"] == 1)
        process.send_signal(signal.SIGTERM)
        until(lambda: not registered(spec.fleet))
        with pytest.raises(urllib.error.HTTPError, match="503") as refused:
            chat(spec, endpoint)
        assert refused.value.headers["Retry-After"]
        process.send_signal(signal.SIGTERM)  # Impatience breaks nothing.
        output, _ = process.communicate(timeout=20)
        asking.join()
    assert answers[0]["usage"]["completion_tokens"] == 10
    assert process.returncode == 0, output
    assert "Served 2 requests, 0 failed." in output
    assert engine_pids(spec) == []


def test_a_call_that_takes_longer_than_the_drain_is_cut_off(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, drain_seconds=0.5)
    with running(spec) as process:
        endpoint = endpoint_of(spec)
        errors: list[BaseException] = []

        def long_call() -> None:
            try:
                chat(spec, endpoint, max_tokens=100, seconds=1.0)
            except OSError as error:
                errors.append(error)

        asking = threading.Thread(target=long_call)
        asking.start()
        until(lambda: ask(spec, endpoint, "/ccai/counts")["in_flight"] == 1)
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=20)
        asking.join(20)
    assert process.returncode == 0
    assert "1 were cut off" in output
    assert errors


def test_an_announced_end_that_reaches_the_engine_too_cuts_nothing(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    with running(spec) as process:
        endpoint = endpoint_of(spec)
        answers: list[Any] = []
        asking = threading.Thread(
            target=lambda: answers.append(chat(spec, endpoint, max_tokens=10, seconds=0.1))
        )
        asking.start()
        until(lambda: ask(spec, endpoint, "/ccai/counts")["in_flight"] == 1)
        # As Slurm does: to all processes of the job.
        family = psutil.Process(process.pid).children(recursive=True)
        for each in [*family, process]:
            each.send_signal(signal.SIGUSR2)
        output, _ = process.communicate(timeout=20)
        asking.join()
    assert answers[0]["usage"]["completion_tokens"] == 10
    assert (process.returncode, "0 failed" in output) == (0, True), output


def test_slow_and_503_is_not_ready(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "--standin-start=1", "--standin-503=1.5")
    started = time.monotonic()
    with running(spec):
        endpoint = endpoint_of(spec)
        assert time.monotonic() - started > 2.5
        assert chat(spec, endpoint)["model"] == "some/model"


NEVER_READY = {
    "--standin-model=other/model": "it serves 'other/model', not 'some/model'",
    "--standin-no-chat": "POST /v1/chat/completions gives 404",
    "--standin-503=60": "GET /health does not give 200",
}


def test_what_is_never_ready_ends_at_the_deadline(tmp_path: Path) -> None:
    with ExitStack() as stack:
        started = {}
        for word in NEVER_READY:
            spec = make_spec(tmp_path / word, word, ready_seconds=4.0)
            started[word] = (spec, stack.enter_context(running(spec)))
        for word, (spec, process) in started.items():
            output, _ = process.communicate(timeout=30)
            assert process.returncode == 2
            why = f"FleetError: Instance 0 was not ready after 4 s: {NEVER_READY[word]}"
            assert why in output
            assert "settings:" in output, "the tail of the engine's log is missing"
            assert registered(spec.fleet) == []
            assert engine_pids(spec) == []


# --- crashes --------------------------------------------------------------------------------------


def test_a_crashed_engine_is_started_again_at_the_same_address(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    with running(spec):
        before = endpoint_of(spec)
        [pid] = engine_pids(spec)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not registered(spec.fleet))
        after = endpoint_of(spec)
        assert after.url == before.url
        assert chat(spec, after)["usage"]["completion_tokens"] == 4
        assert engine_pids(spec) != [pid]


def test_a_silent_engine_is_started_again(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, silent_seconds=1.0)
    with running(spec):
        [pid] = engine_pids(spec)[:1] if endpoint_of(spec) else []
        ask(spec, endpoint_of(spec), "/silence")
        until(lambda: engine_pids(spec) not in ([pid], []))
        assert chat(spec, endpoint_of(spec))["usage"]["completion_tokens"] == 4


def test_it_gives_up_after_so_many_restarts(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "--standin-exit=7", max_restarts=1)
    with running(spec) as process:
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "its engine ended (exit code 7). It was started 2 times; that is enough." in output
    assert spec.log.read_text().count("settings:") == 2


def test_a_killed_instance_leaves_no_engine(tmp_path: Path) -> None:
    child = tmp_path / "child"
    spec = make_spec(tmp_path, f"--standin-child={child}")
    with running(spec) as process:
        endpoint_of(spec)
        left_behind = int(child.read_text())
        process.kill()
        until(lambda: engine_pids(spec) == [] and not psutil.pid_exists(left_behind))


def test_a_requeued_instance_comes_back_under_its_name(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    with running(spec) as process:
        before = endpoint_of(spec)
        process.kill()
    with running(spec):
        until(lambda: endpoint_of(spec).url != before.url)
        assert len(registered(spec.fleet)) == 1
        assert chat(spec, endpoint_of(spec))["model"] == "some/model"


def test_a_missing_program_is_said_at_once(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, executable="/nowhere/vllm")
    with running(spec) as process:
        output, _ = process.communicate(timeout=20)
    assert "FleetError: The engine's program '/nowhere/vllm' is not here." in output


# --- what must not get out, or in -----------------------------------------------------------------


def test_neither_key_reaches_log_command_line_or_spec(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    with running(spec) as process:
        endpoint_of(spec)
        fleet_key = (spec.fleet / "key").read_text()
        [engine] = engine_pids(spec)
        inner_key = psutil.Process(engine).environ()["VLLM_API_KEY"]
        assert inner_key != fleet_key
        family = [process.pid, *(p.pid for p in psutil.Process(process.pid).children(True))]
        shown = " ".join(" ".join(psutil.Process(pid).cmdline()) for pid in family)
        process.terminate()
        output, _ = process.communicate(timeout=20)
    log = spec.log.read_text()
    assert "'api_key': '[secret]'" in log, "the stand-in prints its key, as engines do"
    assert spec.log.stat().st_mode & 0o077 == 0
    for secret in (fleet_key, inner_key):
        for text in (log, shown, output, spec.model_dump_json()):
            assert secret not in text


def test_metacharacters_arrive_as_data(tmp_path: Path) -> None:
    bait = tmp_path / "pwned"
    model = f"x; touch {bait} $(touch {bait}) `touch {bait}` 'a' \"b\" | & > {{}} \\ *"
    spec = make_spec(tmp_path, model=model)
    with running(spec):
        endpoint = endpoint_of(spec)
        assert endpoint.model == model
        assert chat(spec, endpoint)["model"] == model
    assert not bait.exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "", "a\nb", ".hidden", "x;y"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    serve = ServeSpec(engine="vllm", model="m")
    with pytest.raises(ValueError, match="name"):
        InstanceSpec(fleet=tmp_path, name=name, serve=serve)


# --- addresses ------------------------------------------------------------------------------------


def test_it_listens_where_the_profile_says() -> None:
    with listen("lo") as server:
        assert server.getsockname()[0] == "127.0.0.1"
    with pytest.raises(FleetError, match=r"no network interface 'loopbak'.*'loopback'"):
        listen("loopbak")


def test_a_host_name_that_only_this_machine_reaches_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("socket.gethostbyname", lambda name: "127.0.1.1")
    with pytest.raises(FleetError, match=r"resolves to 127\.0\.1\.1, which no other machine"):
        listen("hostname")


# --- as a job -------------------------------------------------------------------------------------


def test_as_a_job_with_tgi_it_ends_well_when_asked(tmp_path: Path) -> None:
    from infra.instance import serve_instance
    from infra.jobs import Resources, submit

    make_key(tmp_path / "fleet")
    serve = ServeSpec(
        engine="tgi", model="/models/kind", served_name="kind",
        executable=program(tmp_path, "tgi"),
    )  # fmt: skip
    spec = InstanceSpec(fleet=tmp_path / "fleet", name="tgi", serve=serve, ready_seconds=20)
    job = submit(
        serve_instance, spec, resources=Resources(cpus=1), cluster=load_cluster("local"),
        key="fleet-tgi", folder=tmp_path / "jobs",
    )  # fmt: skip
    try:
        endpoint = endpoint_of(spec)
        assert endpoint.model == "kind"
        answer = ask(spec, endpoint, "/generate", {"inputs": "Hi", "parameters": {"seed": 1}})
        assert answer["generated_text"]
        os.kill(endpoint.pid, signal.SIGTERM)
        assert "Served 1 requests, 0 failed." in job.result()
    finally:
        job.cancel()


def test_a_spec_that_its_engine_cannot_serve_is_an_error(tmp_path: Path) -> None:
    from infra.instance import serve_instance

    make_key(tmp_path)
    serve = ServeSpec(engine="tgi", model="m", dtype="float32", executable=sys.executable)
    with pytest.raises(ConfigError, match="float16 or bfloat16"):
        serve_instance(InstanceSpec(fleet=tmp_path, name="0", serve=serve))
