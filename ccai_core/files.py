"""Text files that are there whole or not at all, whatever happens while they are written.

write_whole(folder / "evaluation.json", result.model_dump_json())
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ccai_core.errors import ArtifactError


def write_whole(path: Path, text: str | Iterable[str]) -> None:
    """Replace a UTF-8 file in one step: a reader finds the old or the new one, never a torn one.

    Args:
        path: the file; its folder is made where it is missing.
        text: all of it, or parts that are written one after the other.

    Raises:
        ArtifactError: it cannot be written (disk full, no permission); the old file is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.writelines([text] if isinstance(text, str) else text)
                # mkstemp makes files for their owner alone; what we make is there to be shared.
                os.fchmod(file.fileno(), 0o644)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be written ({error.strerror or error}). Free some space, mend its "
            "permissions, or choose another folder."
        ) from error
