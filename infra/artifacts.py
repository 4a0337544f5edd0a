"""What tasks make: a folder an artifact, named by its inputs, reused when complete.

artifacts/pairs-3f2a…/record.json     written last: from here on the artifact counts as complete
artifacts/pairs-3f2a…/…               whatever the task wrote; half of it after a kill, then resumed

    artifact = Artifact(workspace.artifacts, "pairs", fingerprint(inputs))
    if not artifact.is_complete():
        make(artifact.folder)
        artifact.finish(inputs, facts={"pairs": 500})
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ccai_core.files import write_whole
from ccai_core.records import (
    RECORD_FILE,
    ArtifactRecord,
    changed_files,
    content_of,
    read_record,
    sha256_of,
)
from infra.provenance import versions

__all__ = ["Artifact", "ArtifactRecord"]

logger = logging.getLogger(__name__)

# Kept for resuming and for looking into, but no part of what was made.
_NOT_CONTENT = {RECORD_FILE, "progress.json"}


class Artifact:
    """One folder in a workspace's `artifacts`, complete only once its record is there."""

    def __init__(self, root: Path, kind: str, fingerprint: str) -> None:
        self.kind, self.fingerprint = kind, fingerprint
        self.name = f"{kind}-{fingerprint}"
        self.folder = root / self.name
        self.folder.mkdir(parents=True, exist_ok=True)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def is_complete(self) -> bool:
        """Whether it was finished and every file still is as it was; says what is not."""
        record = self.record()
        if record is None:
            return False
        changed = changed_files(self.folder, record)
        for file in changed[:1]:
            logger.warning("%s is not as it was written; it is made again.", file)
        return not changed

    def record(self) -> ArtifactRecord | None:
        """Return its record; None while it is not complete.

        Raises:
            ArtifactError: the record is damaged or from another version.
        """
        return read_record(self.folder)

    def finish(
        self,
        inputs: Mapping[str, Any],
        parents: tuple[str, ...] = (),
        facts: Mapping[str, Any] | None = None,
        leave_out: tuple[str, ...] = (),
    ) -> None:
        """Write the record. Files under a folder named in `leave_out` are not part of the content.

        Raises:
            ArtifactError: the folder cannot be written.
        """
        files = {
            str(file.relative_to(self.folder)): (file.stat().st_size, sha256_of(file))
            for file in self._content(leave_out)
        }
        record = ArtifactRecord(
            kind=self.kind,
            fingerprint=self.fingerprint,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            inputs=json.loads(json.dumps(dict(inputs), default=str)),
            parents=parents,
            facts=dict(facts or {}),
            files=files,
            content=content_of(files),
            versions=versions(),
        )
        write_whole(self / RECORD_FILE, record.model_dump_json(indent=2) + "\n")

    def _content(self, leave_out: tuple[str, ...]) -> Iterator[Path]:
        for file in sorted(self.folder.rglob("*")):
            inner = file.relative_to(self.folder)
            hidden = any(part.startswith(".") for part in inner.parts)
            if file.is_file() and not hidden and inner.parts[0] not in {*_NOT_CONTENT, *leave_out}:
                yield file
