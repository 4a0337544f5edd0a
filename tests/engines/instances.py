"""Run an instance as a process of its own, and ask what it serves."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from infra.endpoint import Endpoint, make_key, registered
from infra.engine_process import tail
from infra.engines import ServeSpec
from infra.instance import InstanceSpec
from tests.engines.programs import program

ROOT = Path(__file__).parents[2]
RUNNER = """
import logging, os, signal, sys
from ccai_core.errors import CCAIError
from infra.instance import InstanceSpec, serve_instance
logging.basicConfig(level="INFO")
try:
    said = serve_instance(InstanceSpec.model_validate_json(sys.argv[1]))
    os.kill(os.getpid(), signal.SIGTERM)  # A repeated signal that comes late.
    print(said)
except CCAIError as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(2)
"""


def make_spec(folder: Path, *words: str, **changes: Any) -> InstanceSpec:
    make_key(folder / "fleet")
    serve = ServeSpec(
        engine="vllm", model=changes.pop("model", "some/model"), options=words,
        executable=changes.pop("executable", None) or program(folder, "vllm"),
        served_name=changes.pop("served_name", ""),
    )  # fmt: skip
    given = {"ready_seconds": 20.0, "drain_seconds": 10.0, "max_restarts": 2, **changes}
    return InstanceSpec(fleet=folder / "fleet", name="0", serve=serve, **given)


@contextmanager
def running(spec: InstanceSpec) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, spec.model_dump_json()], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


def until(
    condition: Callable[[], Any], seconds: float = 15.0, log: Path = Path("/dev/null")
) -> Any:
    """Return the first true value of `condition`; else fail, with the end of a log."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"it did not happen in time; {log}:\n{tail(log, 40)}"
        time.sleep(0.05)
    return found


def endpoint_of(spec: InstanceSpec, seconds: float = 15.0) -> Endpoint:
    found: list[Endpoint] = until(lambda: registered(spec.fleet), seconds, spec.log)
    return found[0]


def ask(spec: InstanceSpec, endpoint: Endpoint, path: str, body: Any = None) -> Any:
    key = (spec.fleet / "key").read_text()
    request = urllib.request.Request(
        endpoint.url + path, data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read() or b"null")


def chat(spec: InstanceSpec, endpoint: Endpoint, **asked: Any) -> Any:
    message = {"role": "user", "content": "Hi"}
    body = {"model": spec.serve.served_name, "messages": [message], "max_tokens": 4, **asked}
    return ask(spec, endpoint, "/v1/chat/completions", body)


def engine_pids(spec: InstanceSpec) -> list[int]:
    """Return the living processes of the stand-in (not of its keeper) that serve this spec."""
    return [
        each.pid
        for each in psutil.process_iter(["cmdline", "status"])
        if each.info["status"] != psutil.STATUS_ZOMBIE
        and (each.info["cmdline"] or [])[1:2] == [str(spec.serve.executable)]
    ]
