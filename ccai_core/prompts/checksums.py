"""Published files known by their hash, whatever they are called here.

known_file(Path("downloads/file.csv"))      # (SOURCES['ailuminate-demo'], its SourceFile)
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ccai_core.embedded import sha256
from ccai_core.prompts.registry import SOURCES, SourceFile, SourceInfo

_CHUNK = 1 << 20
# No published file is near this: a larger one need not be hashed to know that it is none.
_LARGEST = 200_000_000


def git_blob_id(path: Path) -> str:
    """Return the id that git gives a file's content: sha1 of 'blob <size>', a zero byte, content.

    For knowing a published file again, not for security: sha256 is used wherever it is published.
    """
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def is_published(path: Path, file: SourceFile) -> bool:
    """Whether a file is there and has the content of the published one."""
    if not path.is_file():
        return False
    if file.sha256:
        return sha256(path) == file.sha256
    return git_blob_id(path) == file.git_blob


def known_file(path: Path) -> tuple[SourceInfo, SourceFile] | None:
    """Return the source, and which of its files this one is; None for any other file."""
    if path.stat().st_size > _LARGEST:
        return None
    hashes = {sha256(path), git_blob_id(path)}
    for source in SOURCES.values():
        for file in source.files:
            if (file.sha256 or file.git_blob) in hashes:
                return source, file
    return None
