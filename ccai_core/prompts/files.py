"""Prompt files of any kind: AILuminate CSV, or .csv/.jsonl with a text (or prompt) column.

prompts = load_prompts("my_prompts.jsonl")
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ccai_core.config import explain
from ccai_core.control_tokens import find_control_token
from ccai_core.errors import DataError
from ccai_core.prompts.splits import split_of
from ccai_core.types import Prompt

TEXT_COLUMNS = ("text", "prompt", "prompt_text", "question")
MOST_CHARACTERS = 20_000


def load_prompts(path: Path | str) -> list[Prompt]:
    """Read a prompt file; the kind is told by its ending and header.

    Raises:
        DataError: missing, empty, wrong header, bad line, duplicate id; names file and line.
    """
    from ccai_core.prompts.ailuminate import is_ailuminate, load_ailuminate_demo

    path = Path(path).expanduser()
    kind = path.suffix.lower()
    if kind == ".csv":
        header, rows = read_csv(path)
        if is_ailuminate(header):
            return load_ailuminate_demo(path)
        if not set(TEXT_COLUMNS) & set(header):
            raise DataError(
                f"{path} line 1: no prompt column; expected one of {', '.join(TEXT_COLUMNS)}, "
                f"found {', '.join(header)[:200] or 'nothing'}."
            )
    elif kind == ".jsonl":
        rows = _read_jsonl(path)
    else:
        raise DataError(
            f"{path}: unknown kind of prompt file; use .csv (with a header) or .jsonl (an object "
            "a line)."
        )
    prompts = [
        _from_row(row, f"{path} line {line}", path.stem, number)
        for number, (row, line) in enumerate(rows, start=1)
    ]
    if not prompts:
        raise DataError(f"{path}: holds no prompts.")
    return unique(prompts, path)


def make_prompt(text: str, where: str, **fields: Any) -> Prompt:
    """Build a Prompt with its split, refusing text that could not be used as it is.

    Raises:
        DataError: empty, over-long, holding a chat control token, or a field of a wrong type.
    """
    text = text.strip()
    if not text:
        raise DataError(f"{where}: the prompt is empty.")
    if len(text) > MOST_CHARACTERS:
        raise DataError(f"{where}: the prompt has {len(text)} characters; most {MOST_CHARACTERS}.")
    if token := find_control_token(text):
        raise DataError(
            f"{where}: the prompt contains the chat control token {token!r}, which could open a "
            "turn of its own. Remove the line or the token."
        )
    try:
        return Prompt(text=text, split=split_of(text), **fields)
    except ValidationError as error:
        raise DataError(explain(error, Prompt, where)) from None


def decode(path: Path) -> str:
    """Read a UTF-8 file (with or without BOM).

    Raises:
        DataError: it cannot be read, is not UTF-8, or is a web page.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"Prompt file {path}: cannot be read ({error.strerror}).") from None
    if text.lstrip()[:100].casefold().startswith(("<!doctype", "<html")):
        raise DataError(f"{path}: is a web page, not a data file; download the raw file.")
    return text


def read_csv(path: Path) -> tuple[list[str], Iterator[tuple[dict[str, Any], int]]]:
    """Return the column names (lower case) and the rows, each with the line that it begins on.

    Raises:
        DataError: it is no text, or (while iterating) a row does not fit the header.
    """
    reader = csv.reader(io.StringIO(decode(path), newline=""), strict=True)
    header = [name.strip().casefold() for name in next(_lines(reader, path), ([], 0))[0]]
    return header, _fitted(_lines(reader, path), header, path)


def _lines(reader: Any, path: Path) -> Iterator[tuple[list[str], int]]:
    """Yield the rows that are not blank; a quoted field may span lines, so count from the last."""
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path} line {line}: is not proper CSV ({error}). A text with a quote, comma or "
                'line break stands in double quotes, and a quote in it is doubled ("").'
            ) from None
        if row:
            yield row, line


def _fitted(
    rows: Iterator[tuple[list[str], int]], header: list[str], path: Path
) -> Iterator[tuple[dict[str, Any], int]]:
    for row, line in rows:
        if len(row) != len(header):
            raise DataError(
                f"{path} line {line}: has {len(row)} columns where the header has {len(header)}. "
                "A text with a comma in it must stand in double quotes."
            )
        yield dict(zip(header, row, strict=True)), line


def _read_jsonl(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    # Not splitlines(): it also splits at characters that may stand inside a JSON string.
    for number, line in enumerate(decode(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: is not JSON ({error}).") from None
        if not isinstance(row, dict) or not set(TEXT_COLUMNS) & set(row):
            raise DataError(f"{where}: needs an object with one of {', '.join(TEXT_COLUMNS)}.")
        yield row, number


def _from_row(row: dict[str, Any], where: str, stem: str, number: int) -> Prompt:
    column = next(name for name in TEXT_COLUMNS if name in row)
    if not isinstance(row[column], str):
        raise DataError(f"{where}: {column!r} must be a text, found {row[column]!r:.80}.")
    return make_prompt(
        row[column],
        where,
        id=str(row.get("id") or f"{stem}-{number}"),
        source=str(row.get("source") or stem),
        hazard=row.get("hazard") or None,
        principle=row.get("principle") or None,
        tags=tuple(row["tags"]) if isinstance(row.get("tags"), list) else (),
    )


def unique(prompts: list[Prompt], path: Path) -> list[Prompt]:
    """Return the prompts as they are.

    Raises:
        DataError: two of them have the same id.
    """
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise DataError(f"{path}: two prompts have the id {prompt.id!r}; make ids unique.")
        seen.add(prompt.id)
    return prompts
