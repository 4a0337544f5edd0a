from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from infra.lease import Lease, age, watch


@pytest.fixture
def lease(tmp_path: Path) -> Path:
    return tmp_path / "job" / "lease"


def test_age_of_no_lease_is_none(lease: Path) -> None:
    assert age(lease) is None


def test_age_is_never_negative(lease: Path) -> None:
    with Lease(lease):
        future = time.time() + 3600
        os.utime(lease, (future, future))
        assert age(lease) == 0.0


def test_the_file_exists_at_once_and_is_renewed(lease: Path) -> None:
    with Lease(lease, every=0.05):
        first = lease.stat().st_mtime_ns
        time.sleep(0.3)
        assert lease.stat().st_mtime_ns > first


def test_leaving_stops_renewing_but_keeps_the_file(lease: Path) -> None:
    with Lease(lease, every=0.05):
        pass
    last = lease.stat().st_mtime_ns
    time.sleep(0.2)
    assert lease.stat().st_mtime_ns == last


def test_release_removes_the_file(lease: Path) -> None:
    held = Lease(lease, every=0.05).start()
    held.release()
    time.sleep(0.2)
    assert not lease.exists()


def test_renewing_survives_a_file_system_that_is_away(
    lease: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = lease.parent.with_name("away")
    with Lease(lease, every=0.05):
        lease.parent.rename(away)
        time.sleep(0.3)
        away.rename(lease.parent)
        back = lease.stat().st_mtime_ns
        time.sleep(0.3)
        assert lease.stat().st_mtime_ns > back
    assert caplog.text.count("cannot be renewed") == 1


def test_the_watcher_calls_once_when_renewals_stop(lease: Path) -> None:
    calls: list[float] = []
    held = Lease(lease, every=0.1).start()
    watch(lease, 0.4, lambda: calls.append(time.monotonic()))
    time.sleep(0.8)
    assert calls == []
    stopped = time.monotonic()
    held.stop()
    time.sleep(1.0)
    assert len(calls) == 1
    assert calls[0] - stopped > 0.25


def test_a_removed_lease_has_expired(lease: Path) -> None:
    called = threading.Event()
    held = Lease(lease).start()
    watch(lease, 4.0, called.set)
    held.release()
    assert called.wait(2.5)


def test_a_stopped_watcher_stays_silent(lease: Path) -> None:
    called = threading.Event()
    Lease(lease).start().stop()
    watch(lease, 0.3, called.set).set()
    assert not called.wait(0.5)


def test_a_wall_clock_that_jumps_expires_nothing(lease: Path) -> None:
    """The file may look hours old or new: only whether it changes counts."""
    called = threading.Event()
    with Lease(lease, every=10):
        stop = watch(lease, 0.6, called.set)
        for shift in (-7200, 7200, -86400, 3600, -60):
            os.utime(lease, (time.time() + shift,) * 2)
            assert not called.wait(0.25)
        stop.set()


ASLEEP = """
import sys, time
from pathlib import Path
from infra.lease import Lease, watch
with Lease(Path(sys.argv[1]), every=0.15):
    watch(Path(sys.argv[1]), 0.6, lambda: print("expired", flush=True))
    print("started", flush=True)
    sys.stdin.readline()
"""


def test_a_suspended_machine_expires_nothing(lease: Path) -> None:
    """Owner and watcher both sleep for longer than the lease, as on a closed laptop."""
    with subprocess.Popen(
        [sys.executable, "-c", ASLEEP, str(lease)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.4)
        assert process.communicate("\n")[0] == ""
