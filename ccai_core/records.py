"""What an artifact says of itself: what it was made from, what is in it, and whether it still is.

record = read_record(Path("runs/poc/artifacts/pairs-3f2a"))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from ccai_core.config import Config, parse_config
from ccai_core.errors import ArtifactError, ConfigError
from ccai_core.types import fingerprint

RECORD_FILE = "record.json"
# Where a workspace keeps them.
ARTIFACTS_FOLDER = "artifacts"
# Where a data set keeps its rows; the rest of its folder is about them.
DATA_FOLDER = "data"


class ArtifactRecord(Config):
    """What `record.json` says: where an artifact came from and what is in it."""

    kind: str = Field(description="What it is: prompts, pairs, training, evaluation, report.")
    fingerprint: str = Field(description="Hash of everything that determines its content.")
    created: str = Field(description="UTC time of completion, ISO 8601.")
    inputs: dict[str, Any] = Field(description="What the fingerprint was made of, in full.")
    parents: tuple[str, ...] = Field((), description="Names of the artifacts it was made from.")
    facts: dict[str, Any] = Field(default_factory=dict, description="Counts worth knowing.")
    files: dict[str, tuple[int, str]] = Field(description="Bytes and SHA-256 of each file.")
    content: str = Field(
        "", description="Hash of the rows of a data set, or of all files: equal ones hold the same."
    )
    versions: dict[str, str] = Field(
        default_factory=dict, description="Packages, Python and platform that made it."
    )


def read_record(folder: Path) -> ArtifactRecord | None:
    """Return the record of an artifact's folder; None while it is not complete.

    Raises:
        ArtifactError: the record is damaged or from another version.
    """
    path = folder / RECORD_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return parse_config(ArtifactRecord, content, str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise ArtifactError(
            f"{path} cannot be read ({error}). Remove {folder} to make it again."
        ) from None


def changed_files(folder: Path, record: ArtifactRecord) -> list[Path]:
    """Return the files that are not as they were when the record was written."""
    return [
        folder / name
        for name, (size, digest) in record.files.items()
        if not (file := folder / name).is_file()
        or file.stat().st_size != size
        or sha256_of(file) != digest
    ]


def artifacts_of(*paths: Path | None) -> tuple[str, ...]:
    """Return the names of the finished artifacts that files or folders belong to, each once."""
    folders = (each for path in paths if path for each in [path.resolve(), *path.resolve().parents])
    return tuple(dict.fromkeys(each.name for each in folders if _is_artifact(each)))


def _is_artifact(folder: Path) -> bool:
    return folder.parent.name == ARTIFACTS_FOLDER and (folder / RECORD_FILE).is_file()


def content_of(files: Mapping[str, tuple[int, str]]) -> str:
    """Return one hash of what an artifact holds: of its rows where it has any, else of all files.

    The same rows give the same hash, wherever they lie and whatever their card says.
    """
    rows = {name: each for name, each in files.items() if name.startswith(f"{DATA_FOLDER}/")}
    return fingerprint({name: digest for name, (_, digest) in (rows or files).items()})


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
