"""One Prefect server and one finished proof of concept for all tests of flows."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.config import PoCConfig
from flows.results import Summary
from infra.processes import end_processes
from tests.flows.tiny_flow import alive, write_settings


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Prefect's own server for tests, a process with an empty database; gives its API's address."""
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield SubprocessASGIServer().api_url


class Finished:
    """A workspace after one run of the proof of concept."""

    def __init__(self, values: dict[str, Any], summary: Summary) -> None:
        self.values, self.summary = values, summary
        self.workspace = Path(values["workspace"])
        # The run's own: other tests may make more of the same kinds.
        self.artifacts = sorted((self.workspace / "artifacts").iterdir())

    @property
    def config(self) -> PoCConfig:
        return PoCConfig.model_validate(self.values)

    def made(self, label: str) -> Path:
        return Path(self.summary.made[label].split(" (")[0])

    def artifact(self, kind: str) -> Path:
        (folder,) = (each for each in self.artifacts if each.name.startswith(f"{kind}-"))
        return folder


@pytest.fixture(scope="session")
def finished(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    from flows.poc import poc

    folder = tmp_path_factory.mktemp("poc")
    values = write_settings(folder)
    try:
        yield Finished(values, poc(PoCConfig.model_validate(values)))
    finally:
        end_processes(functools.partial(alive, folder / "ws"), grace=0)
