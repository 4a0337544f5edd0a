"""Rows of a data file of any kind, one at a time, with the place of each in the file.

What is wrong with one row is a `BadRow`; what is wrong with the file is a `DataError`. Nothing is
held but the row at hand, so a file may be larger than memory.

    for row in read_table(Path("prompts.csv.gz")).rows: ...
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccai_core.errors import DataError
from ccai_core.prompts.json_rows import MOST_FIELD, Found, Wrong, fold, json_rows
from ccai_core.prompts.text_files import FileError, guarded, open_text

KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
KINDS_IN_WORDS = ".jsonl, .json, .csv, .tsv (each also as .gz) or .parquet"

# The limit is the csv module's own and the same for the whole process; we only ever raise it.
csv.field_size_limit(max(MOST_FIELD, csv.field_size_limit()))


@dataclass(frozen=True, slots=True)
class Row:
    """One row; the keys are in lower case, without spaces around them."""

    where: str
    """File and line, e.g. 'mine.csv line 3'."""
    number: int
    """Its place among the rows, from 1."""
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read."""

    where: str
    number: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Table:
    """A data file: its columns (of JSON, those of its first row) and its rows."""

    name: str
    columns: tuple[str, ...]
    rows: Iterator[Row | BadRow]


def kind_of(path: Path) -> str | None:
    """Return which of `KINDS` a file's name says it is, or None."""
    name = path.name.lower()
    if name.endswith(".gz") and not name.endswith(".parquet.gz"):
        name = name.removesuffix(".gz")
    suffix = Path(name).suffix
    return suffix if suffix in KINDS else None


def stem_of(path: Path) -> str:
    """Return a file's name without its kind: 'mine' for 'mine.csv.gz'."""
    name = path.name
    for suffix in (".gz", *KINDS):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name or path.name


def read_table(path: Path, encoding: str | None = None) -> Table:
    """Begin to read a file; the kind is told by its ending.

    Args:
        path: the file; a gzip file is known by its content, whatever it is called.
        encoding: of a text file; None: UTF-8, or UTF-16 with a byte order mark.

    Raises:
        DataError: it is no data file of a kind we read, or (while iterating) ends too early, is
            not properly quoted or not decodable; says how many rows could be read before.
    """
    kind = kind_of(path)
    if kind is None:
        raise DataError(f"{path}: unknown kind of prompt file; use {KINDS_IN_WORDS}.")
    if kind == ".parquet":
        columns, found = _parquet(path)
    else:
        file, head = open_text(path, encoding, "\n" if kind.startswith(".json") else "")
        if kind.startswith(".json"):
            columns, found = None, json_rows(path, file, head, encoding)
        else:
            columns, found = _csv(
                path, guarded(path, file, encoding), "\t" if kind == ".tsv" else ","
            )
    return table_of(str(path), found, columns)


def table_of(name: str, found: Iterable[Found], columns: tuple[str, ...] | None = None) -> Table:
    """Number what was found; without `columns`, those of the first whole row are taken."""
    rows = _numbered(name, found)
    if columns is not None:
        return Table(name, columns, rows)
    seen: list[Row | BadRow] = []
    for row in rows:
        seen.append(row)
        if isinstance(row, Row):
            columns = tuple(row.values)
            break
    return Table(name, columns or (), itertools.chain(seen, rows))


def _numbered(name: str, found: Iterable[Found]) -> Iterator[Row | BadRow]:
    number = 0
    try:
        for number, (at, what) in enumerate(found, start=1):
            where = f"{name} {at}"
            if isinstance(what, Wrong):
                yield BadRow(where, number, what.reason, what.detail)
            else:
                yield Row(where, number, what)
    except FileError as error:
        before = f" Rows that could be read before it: {number:,}." if number else ""
        raise DataError(f"{name}{error}{before}") from None


# --- CSV ------------------------------------------------------------------------------------------


def _csv(
    path: Path, lines: Iterator[str], delimiter: str
) -> tuple[tuple[str, ...], Iterator[Found]]:
    rows = _csv_rows(csv.reader(lines, delimiter=delimiter, strict=True))
    try:
        first, line = next(rows, ([], 1))
    except FileError as error:
        raise DataError(f"{path}{error}") from None
    header = tuple(name.strip().casefold() for name in first)
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice:
        raise DataError(f"{path} line {line}: the column {twice!r} is there twice; rename one.")
    return header, _fitted(rows, header)


def _csv_rows(reader: Any) -> Iterator[tuple[list[str], int]]:
    """Yield the rows that are not blank; a quoted field may span lines, so count from the last."""
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # Where a quote is wrong nobody can tell where the next row begins.
            raise FileError(
                f" line {line}: is not proper CSV ({error}). A text with a quote, comma or line "
                'break stands in double quotes, and a quote in it is doubled ("").'
            ) from None
        if row:
            yield row, line


def _fitted(rows: Iterator[tuple[list[str], int]], header: tuple[str, ...]) -> Iterator[Found]:
    for row, line in rows:
        if len(row) == len(header):
            yield f"line {line}", dict(zip(header, row, strict=True))
        else:
            yield (
                f"line {line}",
                Wrong(
                    "columns",
                    f"has {len(row)} columns where the header has {len(header)}. A text with a "
                    "comma in it must stand in double quotes.",
                ),
            )


# --- Parquet --------------------------------------------------------------------------------------


def _parquet(path: Path) -> tuple[tuple[str, ...], Iterator[Found]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"Prompt file {path}: cannot be read ({reason}).") from None
    except ArrowException as error:
        raise DataError(f"{path}: is not a Parquet file ({error}). Download it again.") from None

    def rows() -> Iterator[Found]:
        try:
            number = 0
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", fold(row)
        except (OSError, ArrowException) as error:
            raise FileError(f": is damaged ({error}). Download it again.") from None

    return tuple(str(name).strip().casefold() for name in file.schema_arrow.names), rows()
