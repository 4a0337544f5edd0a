"""What people see of a job: its log in the flow run's log, its place and state in the Prefect UI.

view = JobView(job)
job.result(on_poll=view.look)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect.logging import get_run_logger

from infra.jobs import Job
from tasks.shown import show_table

# A job that floods its log must not flood the Prefect server with it: the file has the rest.
_LINES_A_LOOK = 50
_LONGEST_LINE = 500
_LONGEST_READ = 65_536


class JobView:
    """Shows one job, each time somebody looks."""

    def __init__(self, job: Job[Any]) -> None:
        self._job = job
        self._log = get_run_logger()
        self._files = [_Tail(path) for path in job.logs()]
        # Prefect's keys are lower-case letters, digits and dashes.
        self._key = "job-" + re.sub("[^a-z0-9]+", "-", job.key.lower()).strip("-")
        self._shown: dict[str, str] = {}
        self.waits = ""
        """What the job waits for, as of the last look; empty when it waits for nothing."""

    def look(self) -> None:
        """Pass on what is new."""
        for file in self._files:
            lines = list(file.new())
            for line in lines[:_LINES_A_LOOK]:
                self._log.info("%s | %s", self._job.key, line)
            if len(lines) > _LINES_A_LOOK:
                left = len(lines) - _LINES_A_LOOK
                self._log.info("%s | … %d more lines in %s", self._job.key, left, file.path)
        self._show(self._facts())

    def _facts(self) -> dict[str, str]:
        status = self._job.status()
        out, err = self._job.logs()
        words = [each for each in (status.word, status.reason) if each]
        detail = f" ({', '.join(words)})" if words else ""
        is_queued = status.state == "queued"
        self.waits = f"job {self._job.job_id} is queued{detail}" if is_queued else ""
        return {
            "job": self._job.job_id,
            "state": status.state + detail,
            "node": status.node or "",
            "attempt": str(self._job.attempt),
            "restarts": str(status.restarts),
            "log": str(out),
            "errors": str(err),
        }

    def _show(self, facts: dict[str, str]) -> None:
        if facts == self._shown:
            return
        if not self._shown or facts["state"] != self._shown["state"]:
            at = f" on {facts['node']}" if facts["node"] else ""
            self._log.info("Job %s (%s): %s%s", self._job.key, facts["job"], facts["state"], at)
        self._shown = facts
        # Again under the same key: a new version of the same artifact.
        show_table([facts], key=self._key, description=f"Job {self._job.key}")


class _Tail:
    """Reads on in a file that grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # A job that is joined has said most of it to an earlier driver.
        self._at = path.stat().st_size if path.exists() else 0

    def new(self) -> Iterator[str]:
        """Yield the whole lines that have come since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._at)
            read = file.read(_LONGEST_READ)
        whole = read.rfind(b"\n") + 1
        if not whole and len(read) == _LONGEST_READ:
            whole = len(read)  # one line without an end
        self._at += whole
        for line in read[:whole].decode("utf-8", errors="replace").splitlines():
            if line.strip():
                yield line[:_LONGEST_LINE]
