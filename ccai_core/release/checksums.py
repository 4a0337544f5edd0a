"""Is a release as it was made? Every file by its SHA-256, in the format of `sha256sum -c`.

write_checksums(Path("release"))
problems(Path("release"))            # [] as long as nothing was changed, added or lost
"""

from __future__ import annotations

import re
from pathlib import Path

from ccai_core.errors import ArtifactError
from ccai_core.files import write_whole
from ccai_core.records import sha256_of

SUMS_FILE = "SHA256SUMS"
# What `sigstore sign SHA256SUMS` writes beside them: it signs the sums, so they cannot hold it.
SIGNATURE_FILE = f"{SUMS_FILE}.sigstore.json"
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def write_checksums(folder: Path) -> int:
    """Write the sums of all files of a folder into it; returns how many there are."""
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in _files(folder)]
    write_whole(folder / SUMS_FILE, lines)
    return len(lines)


def problems(folder: Path) -> list[str]:
    """Return what is not as the sums say, a line a file.

    Raises:
        ArtifactError: the folder has no sums, or they are damaged.
    """
    sums = _read(folder)
    there = _files(folder)
    found = [f"{name}: is missing" for name in sums if name not in there]
    found += [f"{name}: is not of this release" for name in there if name not in sums]
    found += [
        f"{name}: was changed"
        for name, digest in sums.items()
        if name in there and sha256_of(folder / name) != digest
    ]
    return found


def _read(folder: Path) -> dict[str, str]:
    path = folder / SUMS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{path}: cannot be read ({error}). Name the folder of a release."
        ) from None
    matches = [_LINE.fullmatch(line) for line in lines]
    if not lines or not all(matches):
        raise ArtifactError(f"{path}: is damaged. Get it again from where the release is.")
    return {match[2]: match[1] for match in matches if match}


def _files(folder: Path) -> list[str]:
    """Name every file but the sums and their signature.

    A link counts: what it leads to is no part of the folder.
    """
    apart = (folder / SUMS_FILE, folder / SIGNATURE_FILE)
    return sorted(
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if (file.is_file() or file.is_symlink()) and file not in apart
    )
