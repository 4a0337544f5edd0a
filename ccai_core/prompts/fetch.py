"""Get the published files of a source into the user's data directory: whole, checked, once.

[path] = fetch(SOURCES["ailuminate-demo"])
"""

from __future__ import annotations

import os
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError

from filelock import FileLock

from ccai_core.embedded import cache_directory
from ccai_core.errors import DataError
from ccai_core.files import write_whole
from ccai_core.prompts.checksums import is_published
from ccai_core.prompts.registry import SourceFile, SourceInfo

_TIMEOUT_S = 20.0  # of a server that does not answer, per connection and per read
_CHUNK = 1 << 16
NOTICE = "NOTICE.txt"


def data_directory() -> Path:
    """Return where fetched sources are kept: $CCAI_DATA, else 'data' in the platform's cache."""
    given = os.environ.get("CCAI_DATA")
    return Path(given).expanduser() if given else cache_directory() / "data"


def path_of(file: SourceFile) -> Path:
    """Return where a file of a source is, or will be."""
    return data_directory() / file.name


def fetch(source: SourceInfo) -> list[Path]:
    """Return the source's files, each downloaded unless a good copy is there.

    An interrupted download goes on where it was. Two processes may fetch the same source.

    Raises:
        DataError: there is nothing to fetch, it cannot be downloaded or stored, or what was
            downloaded is not the published file; says what to do instead.
    """
    if not source.files:
        why = "is members-only" if source.restricted else "has no files to fetch"
        raise DataError(f"{source.name}: {why}. {source.note}")
    paths = []
    for file in source.files:
        target = path_of(file)
        if not is_published(target, file):
            _locked(target, partial(_get, source, file, target))
            _write_notice(source, target.parent)
        paths.append(target)
    return paths


def install(source: SourceInfo, given: Path) -> Path:
    """Take a file that was downloaded elsewhere into the data directory, and return its place.

    Raises:
        DataError: it is none of the source's published files, or cannot be copied.
    """
    if not source.files:
        raise DataError(f"{source.name}: is read where it is, never copied. {source.note}")
    if not given.is_file():
        raise DataError(f"{given}: there is no such file.")
    file = next((each for each in source.files if is_published(given, each)), None)
    if file is None:
        raise DataError(
            f"{given}: is none of the published files of {source.name} (by its hash). Download "
            f"{' or '.join(each.url for each in source.files)}."
        )
    target = path_of(file)
    if not is_published(target, file):
        _locked(target, partial(_copy_in, given, target))
        _write_notice(source, target.parent)
    return target


def _locked(target: Path, work: Callable[[], None]) -> None:
    """Do the work in the target's folder, alone."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            work()
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error}). Free some space, mend its "
            "permissions, or set CCAI_DATA to another folder."
        ) from None


def _part(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def _copy_in(given: Path, target: Path) -> None:
    shutil.copyfile(given, _part(target))
    _part(target).replace(target)


def _get(source: SourceInfo, file: SourceFile, target: Path) -> None:
    if is_published(target, file):  # another process was faster
        return
    part = _part(target)
    begun = part.is_file()
    try:
        _download(file, part)
        if begun and not is_published(part, file):  # what was there was of something else
            part.unlink()
            _download(file, part)
    except _NetworkError as error:
        raise DataError(
            f"{source.name}: {file.url} cannot be fetched ({error}). {_way_out(source, file)}"
        ) from None
    if not is_published(part, file):
        part.unlink()
        raise DataError(
            f"{source.name}: what {file.url} answered is not the published file (its hash "
            f"differs), and is not kept. {_way_out(source, file)}"
        )
    part.replace(target)


def _way_out(source: SourceInfo, file: SourceFile) -> str:
    return (
        f"Try again, or download it on a connected machine and put it at {path_of(file)} (`python "
        f"-m ccai_core.prompts fetch {source.name} --file {Path(file.name).name}` does that and "
        "checks it). `show` and `check` read a file where it is."
    )


class _NetworkError(Exception):
    """The network's fault, not the disk's: OSError is both."""


def _download(file: SourceFile, part: Path) -> None:
    """Bring `part` to the whole file, from where an earlier download stopped."""
    have = part.stat().st_size if part.is_file() else 0
    answer = _ask(file.url, have)
    if answer is None:
        return
    with answer:
        goes_on = answer.status == HTTPStatus.PARTIAL_CONTENT
        start = have if goes_on else 0
        rest = int(answer.headers.get("Content-Length") or 0)
        with part.open("ab" if goes_on else "wb") as out, _progress(file, start, rest) as advance:
            _receive(answer, out, rest, advance)


def _ask(url: str, have: int) -> HTTPResponse | None:
    """Ask for what is after the first `have` bytes; None where there is no more."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 (of the registry)
    try:
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
    except HTTPError as error:
        if have and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return None
        raise _NetworkError(f"HTTP {error.code} {error.reason}") from None
    except (OSError, HTTPException) as error:
        raise _NetworkError(getattr(error, "reason", None) or error) from None
    return answer


def _receive(
    answer: HTTPResponse, out: BinaryIO, rest: int, advance: Callable[[int], None]
) -> None:
    received = 0
    while True:
        try:
            chunk = answer.read(_CHUNK)
        except (OSError, HTTPException) as error:
            raise _NetworkError(f"{error}; what came is kept, and the next try goes on") from None
        if not chunk:
            break
        out.write(chunk)
        received += len(chunk)
        advance(len(chunk))
    # An answer that ends too early looks like one that is at its end.
    if received < rest:
        raise _NetworkError(
            f"it ended after {received:,} of {rest:,} bytes; what came is kept, and the next try "
            "goes on"
        )


@contextmanager
def _progress(file: SourceFile, start: int, rest: int) -> Iterator[Callable[[int], None]]:
    """Show name, bar, size, rate and time left, on a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(file.name, total=start + rest if rest else None, completed=start)
        yield lambda size: bar.advance(task, size)


def _write_notice(source: SourceInfo, folder: Path) -> None:
    """Put licence and attribution beside the files, so that they are found together."""
    lines = [
        source.title,
        f"Licence: {source.licence}",
        f"By: {source.attribution}",
        f"See: {source.homepage}",
        *(f"File: {Path(f.name).name} from {f.url}" for f in source.files),
    ]
    if source.harmful:
        lines.append("CONTENT WARNING: holds offensive and dangerous requests by design.")
    write_whole(folder / f"{source.name.replace('/', '-')}-{NOTICE}", "\n".join([*lines, ""]))
