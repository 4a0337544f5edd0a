"""Resumable points of a training run: complete only once sealed, verified before they are used.

A checkpoint is a folder `checkpoint-<step>` that the Trainer writes. Sealing it writes, last of
all, a list of its files with their sizes and checksums. A folder without that list was interrupted,
one that no longer matches it is damaged; both are set aside and the checkpoint before them is used.

    newest = newest_valid(out / "checkpoints", tell=print)      # None: start from the beginning
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

from ccai_core.errors import ArtifactError
from ccai_core.files import write_whole

SEAL = "complete.json"
_FOLDER = re.compile(r"checkpoint-(\d+)")
_ASIDE = ".damaged"
_BLOCK = 1 << 22


def step_of(checkpoint: Path) -> int | None:
    """Return the step a checkpoint folder is named after; None if it is no checkpoint."""
    match = _FOLDER.fullmatch(checkpoint.name)
    return int(match.group(1)) if match else None


def found(root: Path) -> list[Path]:
    """Return the checkpoint folders under `root`, newest first, whatever their state."""
    folders = [f for f in root.glob("checkpoint-*") if f.is_dir() and step_of(f) is not None]
    return sorted(folders, key=lambda f: step_of(f) or 0, reverse=True)


def sealed(root: Path) -> list[Path]:
    """Return the checkpoints that were written to their end, newest first."""
    return [checkpoint for checkpoint in found(root) if (checkpoint / SEAL).is_file()]


def seal(checkpoint: Path) -> None:
    """Mark a checkpoint as complete: flush every file, then write the list of them, last.

    Raises:
        ArtifactError: the disk is full or not writable.
    """
    try:
        files = {
            str(file.relative_to(checkpoint)): _checksum(file, flush=True)
            for file in sorted(checkpoint.rglob("*"))
            if file.is_file()
        }
    except OSError as error:
        raise ArtifactError(f"{checkpoint}: cannot be completed ({error.strerror}).") from None
    write_whole(checkpoint / SEAL, json.dumps({"step": step_of(checkpoint), "files": files}))


def problem(checkpoint: Path) -> str | None:
    """Say what keeps a checkpoint from being used; None if every byte is as it was written."""
    try:
        files = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))["files"]
        items = [(str(name), list(expected)) for name, expected in files.items()]
    except FileNotFoundError:
        return "it was not written to its end"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"its {SEAL} is damaged"
    for name, expected in items:
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected[0]:
            return f"{name} has {file.stat().st_size} bytes instead of {expected[0]}"
        if _checksum(file) != expected:
            return f"the content of {name} has changed"
    return None


def newest_valid(root: Path, tell: Callable[[str], None]) -> Path | None:
    """Return the newest usable checkpoint; rename unusable ones and tell about them."""
    for checkpoint in found(root):
        wrong = problem(checkpoint)
        if wrong is None:
            return checkpoint
        aside = checkpoint.with_name(checkpoint.name + _ASIDE)
        for older in root.glob(f"checkpoint-*{_ASIDE}"):
            # Gigabytes each, and only the last one can still tell what happened.
            shutil.rmtree(older)
        checkpoint.rename(aside)
        tell(f"Warning: {checkpoint.name} cannot be used, {wrong}. Set aside as {aside.name}.")
    return None


def prune(root: Path, keep: int, spare: int | None = None) -> None:
    """Delete all but the `keep` newest sealed checkpoints and that of step `spare`."""
    for checkpoint in sealed(root)[keep:]:
        if step_of(checkpoint) == spare:
            continue
        # Unsealed first: if this is interrupted, what is left is not taken for a checkpoint.
        (checkpoint / SEAL).unlink()
        shutil.rmtree(checkpoint)


def _checksum(file: Path, flush: bool = False) -> list[int]:
    """Return [bytes, CRC-32] of a file; `flush` makes sure that it is on the disk first."""
    size = crc = 0
    with file.open("rb") as opened:
        if flush:
            os.fsync(opened.fileno())
        while block := opened.read(_BLOCK):
            size += len(block)
            crc = zlib.crc32(block, crc)
    return [size, crc]
