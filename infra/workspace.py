"""The directory a flow works in: made, checked and held by one process at a time.

workspace = Workspace(Path("runs/poc"), need_gb=2)
with workspace.lock():
    submit(..., folder=workspace.jobs)
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ccai_core.errors import ArtifactError
from ccai_core.files import write_whole
from ccai_core.records import ARTIFACTS_FOLDER

_GB = 1e9


class Workspace:
    """A directory with the places everything a flow makes goes to."""

    root: Path
    """The directory itself, resolved: two spellings of one place are one workspace."""
    artifacts: Path
    """Finished and half-finished artifacts, one folder each."""
    journal: Path
    """Append-only records of finished model calls."""
    jobs: Path
    """Records, leases and logs of submitted jobs."""
    fleets: Path
    """Keys, leases and registered endpoints of inference fleets."""
    reference: Path
    """Log-probabilities of reference models, shared by training runs."""

    def __init__(self, root: Path, need_gb: float = 1.0) -> None:
        """Create the directory and its folders where they are missing.

        Raises:
            ArtifactError: it cannot be written, or its disk has less than `need_gb` (10^9 bytes)
                free.
        """
        self.root = root.expanduser().resolve()
        self.artifacts = self.root / ARTIFACTS_FOLDER
        self.journal = self.root / "journal"
        self.jobs = self.root / "jobs"
        self.fleets = self.root / "fleets"
        self.reference = self.root / "reference"
        self._make()
        self.check_space(need_gb)

    def check_space(self, need_gb: float) -> None:
        """Refuse to go on with less than `need_gb` free; call it again before a large step.

        Raises:
            ArtifactError: says how much is free, how much is needed and what to do.
        """
        free_gb = shutil.disk_usage(self.root).free / _GB
        if free_gb < need_gb:
            raise ArtifactError(
                f"{self.root}: {free_gb:.1f} GB free, {need_gb:.1f} GB needed. Remove what is no "
                f"longer wanted (largest: `du -sh {self.artifacts}/* | sort -h`) or choose a "
                "workspace on another disk."
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the workspace; a second process is refused at once, it does not wait.

        The operating system drops the lock when its holder ends, however it ends, so a stale
        note about a killed holder hinders nobody.

        Raises:
            ArtifactError: somebody else holds it; names process, host and start.
        """
        held = FileLock(self.root / ".lock")
        try:
            held.acquire(timeout=0)
        except Timeout:
            raise ArtifactError(
                f"{self.root} is in use by {self._holder()}. Wait for it, end it, or choose "
                "another workspace."
            ) from None
        try:
            self._sign()
            yield
        finally:
            self._note.unlink(missing_ok=True)
            held.release()

    @property
    def _note(self) -> Path:
        return self.root / ".lock.json"

    def _make(self) -> None:
        try:
            for folder in (self.root, self.artifacts, self.journal, self.jobs, self.fleets):
                folder.mkdir(parents=True, exist_ok=True)
                # Only writing shows that one can: permissions, quotas, read-only mounts.
                with tempfile.TemporaryFile(dir=folder) as probe:
                    probe.write(b"ccai")
        except OSError as error:
            raise ArtifactError(
                f"{self.root} cannot be used as a workspace: {error.strerror or error} "
                f"({error.filename or self.root}). Choose a directory you can write to, or mend "
                "its permissions or disk."
            ) from None

    def _sign(self) -> None:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_whole(self._note, json.dumps(holder) + "\n")

    def _holder(self) -> str:
        try:
            holder = json.loads(self._note.read_text(encoding="utf-8"))
            return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (FileNotFoundError, ValueError, KeyError):
            return "another process, which has not signed yet"
