"""Files that are there whole or not at all, whatever happens while they are written.

write_whole(folder / "evaluation.json", result.model_dump_json())
with whole_file(folder / "data.parquet") as file: ...
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ccai_core.errors import ArtifactError


def write_whole(path: Path, text: str | Iterable[str]) -> None:
    """Replace a UTF-8 file in one step: a reader finds the old or the new one, never a torn one.

    Args:
        path: the file; its folder is made where it is missing.
        text: all of it, or parts that are written one after the other.

    Raises:
        ArtifactError: it cannot be written (disk full, no permission); the old file is as it was.
    """
    with whole_file(path) as file:
        for part in [text] if isinstance(text, str) else text:
            file.write(part.encode())


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written, which takes the place of `path` at the end of the block.

    An exception in the block leaves the old file as it was, and nothing else.

    Raises:
        ArtifactError: it cannot be written (disk full, no permission).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
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
