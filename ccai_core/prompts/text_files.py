"""Text files as they come: gzip or plain, UTF-8 or UTF-16; or a clear word on what they are.

file, beginning = open_text(Path("prompts.csv.gz"), None, newline="")
lines = guarded(path, file, None)
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from ccai_core.errors import DataError

CHUNK = 1 << 16
_BOMS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class FileError(Exception):
    """What ends the reading of a file; `rows` makes a DataError of it that says how far it came."""


def open_text(path: Path, encoding: str | None, newline: str) -> tuple[TextIO, str]:
    """Return the file, and its beginning without the white space before it.

    Raises:
        DataError: it cannot be read, or is plainly something else.
    """
    try:
        raw = _open_bytes(path)
        start = raw.peek(2000)[:2000]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: is not a whole gzip file ({error}). Download it again.") from None
    except OSError as error:
        raise DataError(f"Prompt file {path}: cannot be read ({error.strerror}).") from None
    encoding = _encoding(start, encoding)
    head = start.decode(encoding, "ignore").lstrip("\ufeff \t\r\n")
    if other := _something_else(start, head):
        raw.close()
        raise DataError(f"{path}: {other}")
    return io.TextIOWrapper(raw, encoding=encoding, newline=newline), head


def _open_bytes(path: Path) -> io.BufferedReader:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    if zipped:
        return io.BufferedReader(gzip.open(path))
    return path.open("rb")


def _something_else(start: bytes, head: str) -> str | None:
    """Say what a file is that is plainly no text with data, and what to do."""
    low = head[:200].casefold()
    # A page may begin with a comment; a store's "access denied" is XML.
    if low.startswith(("<!", "<html", "<?xml")) or (low[:1] == "<" and "<html" in low):
        return "is a web page, not a data file; download the raw file."
    if low.startswith("version https://git-lfs"):
        return "is only a pointer to the file (Git LFS). Get the file itself: `git lfs pull`."
    if start.startswith(b"PK\x03\x04"):
        return "is a zip archive or an Excel workbook; export it as CSV (UTF-8)."
    if "\0" in head:
        return (
            "holds zero bytes: it is UTF-16 without a byte order mark, or no text at all. Save it "
            "as UTF-8."
        )
    return None


def _encoding(start: bytes, given: str | None) -> str:
    if given is None:
        given = next((name for bom, name in _BOMS if start.startswith(bom)), "utf-8")
    # With -sig, a byte order mark is no part of the first column's name.
    return "utf-8-sig" if codecs.lookup(given).name == "utf-8" else given


def guarded(
    path: Path,
    file: TextIO,
    encoding: str | None,
    pieces: Callable[[TextIO], Iterable[str]] = iter,
) -> Iterator[str]:
    """Yield lines (or other pieces) and turn what ends the reading into a FileError."""
    with file:
        try:
            yield from pieces(file)
        except EOFError:
            raise FileError(
                ": is cut short (the gzip data ends too early). Download it again."
            ) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise FileError(f": is damaged ({error}). Download it again.") from None
        except UnicodeDecodeError:
            raise FileError(_undecodable(path, encoding)) from None
        except OSError as error:
            raise FileError(f": cannot be read ({error.strerror}).") from None


def _undecodable(path: Path, given: str | None) -> str:
    """Say which byte of the file is wrong, and what to do."""
    with _open_bytes(path) as file:
        encoding = _encoding(file.peek(4)[:4], given).removesuffix("-sig")
        byte, offset, line = _first_bad_byte(file, encoding)
    name = codecs.lookup(encoding).name.upper()
    if name != "UTF-8":
        return f" line {line}: is not {name}: byte {offset} is 0x{byte:02X}. Save it as UTF-8."
    other = bytes([byte]).decode("cp1252", "replace")
    return (
        f" line {line}: is not UTF-8: byte {offset} is 0x{byte:02X} ({other!r} in Windows-1252). "
        "Save it as UTF-8 (`iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW`), or read it by a mapping "
        "that says `encoding: cp1252`."
    )


def _first_bad_byte(file: BinaryIO, encoding: str) -> tuple[int, int, int]:
    """Return the byte that does not decode, its offset in the file, and its line."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, line = 0, 1
    while True:
        chunk = file.read(CHUNK)
        try:
            line += decoder.decode(chunk, final=not chunk).count("\n")
        except UnicodeDecodeError as error:
            held = len(error.object) - len(chunk)  # bytes of a character begun in the last chunk
            line += error.object[: error.start].count(b"\n")
            return error.object[error.start], offset - held + error.start, line
        offset += len(chunk)
