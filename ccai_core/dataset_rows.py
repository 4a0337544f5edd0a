"""The rows of a data set, read back in the order they were written in.

prompts = read_prompt_dataset(Path("runs/data/artifacts/prompts-3f2a"))
rows = read_dataset_rows(Path("runs/poc/artifacts/pairs-3f2a"), "pairs")
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from ccai_core.config import Config, explain
from ccai_core.dataset_info import INFO_FILE, Kind, data_file, read_info
from ccai_core.dataset_parquet import from_json, read_rows
from ccai_core.errors import DataError
from ccai_core.types import PreferencePair, Prompt

log = logging.getLogger(__name__)

R = TypeVar("R", PreferencePair, Prompt)


def read_prompt_dataset(folder: Path) -> tuple[Prompt, ...]:
    """Read the prompts of a data set, in their order; those without text are left out and told.

    Raises:
        DataError: it is no data set of prompts, is damaged, or has no text at all.
    """
    rows = read_dataset_rows(folder, "prompts")
    prompts = tuple(row_as(Prompt, row.values, row.where) for row in rows if row.values["text"])
    if rows and not prompts:
        raise DataError(withheld_words(folder, len(rows), len(rows)))
    if withheld := len(rows) - len(prompts):
        log.warning("%s", withheld_words(folder, withheld, len(rows)))
    return prompts


def withheld_words(folder: Path, withheld: int, of: int) -> str:
    """Say that prompts are left out because their text is not in a data set."""
    return (
        f"{folder}: {withheld} of {of} prompts are members-only and were written without their "
        "text, so they are left out. Prepare again with --include-restricted to have them."
    )


class Row(NamedTuple):
    """One row as plain values, and where it is, for errors."""

    where: str
    values: dict[str, Any]


def read_dataset_rows(folder: Path, kind: Kind) -> list[Row]:
    """Read every row of a data set in its order, with the column `index` taken off.

    Raises:
        DataError: it is no data set of this kind, or is damaged.
    """
    info = read_info(folder)
    if info.kind != kind:
        raise DataError(f"{folder}: holds {info.kind}, not {kind}.")
    rows: list[tuple[int, Row]] = []
    for split, expected in info.rows.items():
        found = list(read_parquet_rows(folder / data_file(split)))
        if len(found) != expected:
            raise DataError(
                f"{folder / data_file(split)}: has {len(found)} rows, {INFO_FILE} says {expected}. "
                f"Remove {folder} to make it again."
            )
        if any(not isinstance(row.values.get("index"), int) for row in found):
            raise DataError(f"{folder / data_file(split)}: has no column 'index' of numbers.")
        rows += [(row.values.pop("index"), row) for row in found]
    return [row for _, row in sorted(rows, key=lambda each: each[0])]


def read_parquet_rows(file: Path) -> Iterator[Row]:
    """Give the rows of a Parquet file with their places."""
    for number, values in enumerate(read_rows(file), start=1):
        yield Row(f"{file} row {number}", values)


def row_as(kind: type[R], values: Mapping[str, Any], where: str) -> R:
    """Build a pair or a prompt from a row's values.

    Raises:
        DataError: a column is missing or wrong; names where.
    """
    required = _required(kind)
    if missing := [name for name in required if name not in values]:
        raise DataError(
            f"{where}: column {', '.join(map(repr, missing))} is missing; "
            f"expected {', '.join(required)}."
        )
    # The hash stands for the text of members-only prompts; a prompt itself has none.
    own = {name: value for name, value in values.items() if name != "text_sha256"}
    try:
        return kind.model_validate(from_json(kind, own))
    except ValidationError as error:
        raise DataError(explain(error, kind, where)) from None
    except ValueError as error:
        raise DataError(f"{where}: a column is not JSON text ({error}).") from None


@lru_cache
def _required(kind: type[Config]) -> tuple[str, ...]:
    return tuple(name for name, field in kind.model_fields.items() if field.is_required())
