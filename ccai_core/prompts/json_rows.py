"""Objects of a JSON file: one a line, or one list of them; both come under either file name.

for at, values in json_rows(path, file, beginning, None): ...
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ccai_core.prompts.text_files import CHUNK, FileError, guarded

# A text longer than this is no prompt but one whose end is missing.
MOST_FIELD = 16_000_000


@dataclass(frozen=True, slots=True)
class Wrong:
    """Why a row cannot be read."""

    reason: str
    detail: str


# Where in the file ('line 3'), and the values there or what is wrong with them.
Found = tuple[str, dict[str, Any] | Wrong]


def fold(values: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its keys in lower case, without spaces around them."""
    return {str(key).strip().casefold(): value for key, value in values.items()}


def json_rows(path: Path, file: TextIO, head: str, encoding: str | None) -> Iterator[Found]:
    """Read an object a line, or one list of objects; both come under either name."""
    if not head.startswith("["):
        return _json_lines(guarded(path, file, encoding))
    return _json_list(guarded(path, file, encoding, lambda f: iter(lambda: f.read(CHUNK), "")))


def _json_lines(lines: Iterator[str]) -> Iterator[Found]:
    # Lines end at \n alone: other characters that end lines may stand inside a JSON string.
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = _object(json.loads(line))
        except (ValueError, RecursionError) as error:
            whole = " An object stands whole on one line." if line.strip() == "{" else ""
            found = Wrong("not JSON", f"is not JSON ({error}).{whole}")
        yield f"line {number}", found


def _object(value: Any) -> dict[str, Any] | Wrong:
    if isinstance(value, dict):
        return fold(value)
    return Wrong("not an object", f"needs an object, found {type(value).__name__}.")


def _json_list(chunks: Iterator[str]) -> Iterator[Found]:
    decode = json.JSONDecoder().raw_decode
    buffer, place, number = next(chunks).lstrip()[1:], 0, 0
    while True:
        buffer, place = _more(buffer, place, chunks)
        if place < len(buffer) and buffer[place] == "]":
            if buffer[place + 1 :].strip() or any(chunk.strip() for chunk in chunks):
                raise FileError(f" after item {number}: goes on after the end of the list.")
            return
        number += 1
        value, place, buffer = _item(decode, buffer, place, chunks, number)
        yield f"item {number}", _object(value)


def _more(buffer: str, place: int, chunks: Iterator[str]) -> tuple[str, int]:
    """Pass over white space and a comma; at the end of the buffer read on."""
    while True:
        while place < len(buffer) and buffer[place] in " \t\r\n,":
            place += 1
        if place < len(buffer):
            return buffer, place
        chunk = next(chunks, None)
        if chunk is None:
            return buffer, place
        buffer, place = chunk, 0


def _item(
    decode: Callable[[str, int], tuple[Any, int]],
    buffer: str,
    place: int,
    chunks: Iterator[str],
    number: int,
) -> tuple[Any, int, str]:
    """Decode the value at `place`, reading on as long as it is not whole."""
    while True:
        try:
            value, end = decode(buffer, place)
            return value, end, buffer
        except (ValueError, RecursionError) as error:
            problem = getattr(error, "msg", str(error))
        # Reading as much again as there is keeps the work in proportion to the file.
        wanted = max(1, (len(buffer) - place) // CHUNK)
        more = "".join(itertools.islice(chunks, wanted))
        if not more or len(buffer) - place > MOST_FIELD:
            raise FileError(f" item {number}: is not JSON ({problem}).")
        buffer, place = buffer[place:] + more, 0
