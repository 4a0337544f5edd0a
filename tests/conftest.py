"""How tests are divided when several processes run them (`make test` does)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
# Minutes long, and without what the others share.
_ALONE = {"test_real_weights.py"}
# What takes longest begins first, or the end waits for it with one process at work.
_FIRST = ("test_real_weights.py", "cluster", "flows", "test_dpo.py")

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is there: several processes of several threads each stand in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


# Before xdist's own hook, which reads the marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The proof of concept's own tests do things to its workspace; all others only read it.
    items.sort(key=lambda item: (_turn(item), item.path.name == "test_poc.py"))
    # A file stays in one process, for its fixtures; so do all files that share a Slurm, a finished
    # proof of concept with its Prefect server, or a server alone.
    served = {item.path for item in items if "server" in getattr(item, "fixturenames", ())}
    for item in items:
        folder, *rest = item.path.relative_to(_HERE).parts
        shared = folder in {"cluster", "flows"} and item.path.name not in _ALONE
        shared = shared or (folder == "tasks" and item.path in served)
        item.add_marker(pytest.mark.xdist_group(folder if shared else "/".join([folder, *rest])))


def _turn(item: pytest.Item) -> int:
    names = {item.path.relative_to(_HERE).parts[0], item.path.name}
    return next((n for n, name in enumerate(_FIRST) if name in names), len(_FIRST))
