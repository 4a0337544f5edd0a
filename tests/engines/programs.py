"""Start a stand-in by its adapter's own command line, as an instance would."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.engines import ServeSpec, engine
from infra.ports import free_port

HERE = Path(__file__).parent
SCRIPTS = {"vllm": HERE / "standin.py", "tgi": HERE / "tgi_standin.py"}
NAMES = {"vllm": "vllm", "tgi": "text-generation-launcher"}


def program(folder: Path, name: str) -> str:
    """Make a stand-in a program of the engine's name, run by our interpreter."""
    path = folder / "bin" / NAMES[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n" + SCRIPTS[name].read_text())
    path.chmod(0o755)
    return str(path)


@contextmanager
def started(folder: Path, name: Any, key: str, **changes: Any) -> Iterator[str]:
    """Run it; yield its URL once it answers."""
    spec = ServeSpec(
        engine=name, **{"model": "some/model", **changes, "executable": program(folder, name)}
    )
    port, adapter = free_port(), engine(spec.engine)
    process = subprocess.Popen(
        adapter.command(spec, port), env={**os.environ, **adapter.environment(spec, key)},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).read()
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(10)
