"""What tasks make: a folder an artifact, named by its inputs, reused when complete.

artifacts/pairs-3f2a…/record.json     written last: from here on the artifact counts as complete
artifacts/pairs-3f2a…/…               whatever the task wrote; half of it after a kill, then resumed

    artifact = Artifact(workspace.artifacts, "pairs", fingerprint(inputs))
    if not artifact.is_complete():
        make(artifact.folder)
        artifact.finish(inputs, facts={"pairs": 500})
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from ccai_core.config import Config, parse_config
from ccai_core.errors import ArtifactError, ConfigError
from ccai_core.files import write_whole

logger = logging.getLogger(__name__)

# Kept for resuming and for looking into, but no part of what was made.
_NOT_CONTENT = {"record.json", "progress.json"}


class ArtifactRecord(Config):
    """What `record.json` says: where an artifact came from and what is in it."""

    kind: str = Field(description="What it is: pairs, training, evaluation, report.")
    fingerprint: str = Field(description="Hash of everything that determines its content.")
    created: str = Field(description="UTC time of completion, ISO 8601.")
    inputs: dict[str, Any] = Field(description="What the fingerprint was made of, in full.")
    parents: tuple[str, ...] = Field((), description="Names of the artifacts it was made from.")
    facts: dict[str, Any] = Field(default_factory=dict, description="Counts worth knowing.")
    files: dict[str, tuple[int, str]] = Field(description="Bytes and SHA-256 of each file.")


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
        for name, (size, digest) in record.files.items():
            file = self.folder / name
            if not file.is_file() or file.stat().st_size != size or _sha256(file) != digest:
                logger.warning("%s is not as it was written; it is made again.", file)
                return False
        return True

    def record(self) -> ArtifactRecord | None:
        """Return its record; None while it is not complete.

        Raises:
            ArtifactError: the record is damaged or from another version.
        """
        path = self / "record.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return parse_config(ArtifactRecord, content, str(path))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, ConfigError) as error:
            raise ArtifactError(
                f"{path} cannot be read ({error}). Remove {self.folder} to make it again."
            ) from None

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
            str(file.relative_to(self.folder)): (file.stat().st_size, _sha256(file))
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
        )
        write_whole(self / "record.json", record.model_dump_json(indent=2) + "\n")

    def _content(self, leave_out: tuple[str, ...]) -> Iterator[Path]:
        for file in sorted(self.folder.rglob("*")):
            inner = file.relative_to(self.folder)
            hidden = any(part.startswith(".") for part in inner.parts)
            if file.is_file() and not hidden and inner.parts[0] not in {*_NOT_CONTENT, *leave_out}:
                yield file


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
