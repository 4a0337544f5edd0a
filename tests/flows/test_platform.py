"""The services as in production, on a real PostgreSQL: flow runs at once, a server that is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.services.many_runs import measure
from benchmarks.services.outages import Lab
from flows.serve_config import ServeConfig
from tests.platform_lab import Platform, missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    if lacks := missing():
        pytest.skip(lacks)
    serve = ServeConfig(local=2, runs=4, at_once=4)
    with Platform(tmp_path_factory.mktemp("servers"), serve) as started:
        yield started


def test_flow_runs_at_once_are_all_known_to_everybody(platform: Platform, tmp_path: Path) -> None:
    facts, wrong = measure(platform, tmp_path, 4)
    assert not wrong, (wrong, facts)


def test_nothing_is_missing_after_an_outage_of_the_database(
    platform: Platform, tmp_path: Path
) -> None:
    undisturbed, disturbed = Lab(platform, tmp_path, pairs=6, seconds=20).all(
        ["postgres"], ["middle"]
    )
    assert (undisturbed.state, disturbed.state) == ("COMPLETED", "COMPLETED")
    assert disturbed.missing == []
