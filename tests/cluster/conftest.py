"""A real Slurm for the tests here: started when the first test wants it, once for all of them.

`lab` has accounting, `bare_lab` has none; both are shared by the whole session. A test that runs
Slurm's commands in its own process takes `on_lab` or `on_bare_lab` instead: the same lab, healed if
an earlier test broke it, with `SLURM_CONF` and `PATH` set for this test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm_lab import SlurmLab, missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def lab() -> Iterator[SlurmLab]:
    """4 nodes of 4 CPUs and 2 fake GPUs; partitions main, low, kill, high; sacct works."""
    if lacks := missing():
        pytest.skip(lacks)
    with SlurmLab(nodes=4) as started:
        yield started


@pytest.fixture(scope="session")
def bare_lab() -> Iterator[SlurmLab]:
    """2 nodes, and no accounting: sacct knows nothing."""
    if lacks := missing(accounting=False):
        pytest.skip(lacks)
    with SlurmLab(nodes=2, accounting=False) as started:
        yield started


@pytest.fixture
def on_lab(lab: SlurmLab, monkeypatch: pytest.MonkeyPatch) -> SlurmLab:
    return _entered(lab, monkeypatch)


@pytest.fixture
def on_bare_lab(bare_lab: SlurmLab, monkeypatch: pytest.MonkeyPatch) -> SlurmLab:
    return _entered(bare_lab, monkeypatch)


def _entered(lab: SlurmLab, monkeypatch: pytest.MonkeyPatch) -> SlurmLab:
    for name, value in lab.environment.items():
        monkeypatch.setenv(name, value)
    lab.heal()
    # What an earlier test left in the queue is none of this one's.
    lab.cancel_all()
    return lab
