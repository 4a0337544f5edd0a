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
    if path.suffix == ".csv":
        header = next(csv.reader(io.StringIO(decode(path))), [])
        if is_ailuminate(header):
            return _unique(load_ailuminate_demo(path), path)
        rows = _csv_rows(path)
    elif path.suffix in {".jsonl", ".json"}:
        rows = _jsonl_rows(path)
    else:
        raise DataError(f"{path}: unknown kind of prompt file; use .csv or .jsonl.")
    prompts = [_from_row(row, where, path.stem, i) for i, (row, where) in enumerate(rows, start=1)]
    if not prompts:
        raise DataError(f"{path}: holds no prompts.")
    return _unique(prompts, path)


def make_prompt(text: str, where: str, **fields: Any) -> Prompt:
    """Build a Prompt with its split, refusing text that could not be used as it is.

    Raises:
        DataError: empty, over-long, or holding a chat control token.
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
    return Prompt(text=text, split=split_of(text), **fields)


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


def _csv_rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    reader = csv.DictReader(io.StringIO(decode(path), newline=""))
    header = [name.strip().casefold() for name in reader.fieldnames or []]
    if not set(TEXT_COLUMNS) & set(header):
        raise DataError(
            f"{path} line 1: no prompt column; expected one of {', '.join(TEXT_COLUMNS)}, found "
            f"{', '.join(header)[:200] or 'nothing'}."
        )
    reader.fieldnames = header
    for row in reader:
        yield row, f"{path} line {reader.line_num}"


def _jsonl_rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    for number, line in enumerate(decode(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: is not JSON ({error}).") from None
        if not isinstance(row, dict) or not set(TEXT_COLUMNS) & set(row):
            raise DataError(f"{where}: needs an object with one of {', '.join(TEXT_COLUMNS)}.")
        yield row, where


def _from_row(row: dict[str, Any], where: str, stem: str, number: int) -> Prompt:
    column = next(name for name in TEXT_COLUMNS if name in row)
    return make_prompt(
        str(row[column] or ""),
        where,
        id=str(row.get("id") or f"{stem}-{number}"),
        source=str(row.get("source") or stem),
        hazard=row.get("hazard") or None,
        principle=row.get("principle") or None,
        tags=tuple(row["tags"]) if isinstance(row.get("tags"), list) else (),
    )


def _unique(prompts: list[Prompt], path: Path) -> list[Prompt]:
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise DataError(f"{path}: two prompts have the id {prompt.id!r}; make ids unique.")
        seen.add(prompt.id)
    return prompts
