"""A killed driver leaves no child behind, and a living one keeps its children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
DRIVER = """
import subprocess, sys, time
from infra.guard import guard_children
guard_children()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print(child.pid, flush=True)
sys.stdin.read() if sys.argv[1] == "ends" else time.sleep(300)
"""


def start(way: str) -> tuple[subprocess.Popen[str], psutil.Process]:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, way], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert driver.stdout is not None
    return driver, psutil.Process(int(driver.stdout.readline()))


def gone(process: psutil.Process, seconds: float = 15) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_driver_leaves_no_child(sign: signal.Signals) -> None:
    driver, child = start("sleeps")
    time.sleep(0.5)
    assert child.is_running()
    os.kill(driver.pid, sign)
    driver.wait(10)
    assert gone(child)


def test_a_driver_that_ends_by_itself_takes_them_along() -> None:
    driver, child = start("ends")
    driver.communicate("")
    assert gone(child)
