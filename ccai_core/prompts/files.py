"""Prompt files of any kind: the formats we know by their columns, or your own with a text column.

prompts = load_prompts("my_prompts.jsonl")
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ccai_core.errors import DataError, did_you_mean
from ccai_core.prompts.ailuminate import ailuminate_prompts, is_ailuminate, source_of
from ccai_core.prompts.checksums import known_file
from ccai_core.prompts.hh_rlhf import hh_rlhf_prompts, is_hh_rlhf
from ccai_core.prompts.mt_bench import is_mt_bench, mt_bench_prompts
from ccai_core.prompts.oasst import is_oasst, oasst_prompts
from ccai_core.prompts.reading import Make, Reading, RowError, make_prompt, read_prompts
from ccai_core.prompts.registry import SOURCES, SourceInfo
from ccai_core.prompts.rows import Row, Table, kind_of, read_table, stem_of
from ccai_core.types import Prompt, Split

__all__ = ["TEXT_COLUMNS", "load_prompts", "make_prompt", "own_prompt", "read_file", "settled"]

TEXT_COLUMNS = ("text", "prompt", "prompt_text", "question")
_FORMATS: Mapping[str, Callable[[Collection[str]], bool]] = {
    "ailuminate": is_ailuminate,
    "hh-rlhf": is_hh_rlhf,
    "mt-bench": is_mt_bench,
    "oasst1": is_oasst,
}


def load_prompts(path: Path | str) -> list[Prompt]:
    """Read a prompt file, all of it or nothing: for a small file of one's own.

    Raises:
        DataError: missing, empty, wrong header, bad row, duplicate id, a chat control token in a
            prompt; names file and line.
    """
    path = Path(path).expanduser()
    _, reading = read_file(path, strict=True)
    if not reading.prompts:
        raise DataError(f"{path}: holds no prompts.")
    return list(reading.prompts)


def read_file(
    path: Path,
    source: SourceInfo | None = None,
    *,
    multi_turn: bool = False,
    strict: bool = False,
) -> tuple[SourceInfo, Reading]:
    """Read a file of a known format, or one with a text column.

    Args:
        path: the file.
        source: what it is; None: told by its hash, its columns and its name.
        multi_turn: of conversations, the last question with what came before it.
        strict: the first row that cannot be used ends it.

    Raises:
        DataError: it cannot be read, or is not of this source.
    """
    table = read_table(path)
    format_ = next((name for name, fits in _FORMATS.items() if fits(table.columns)), None)
    known = known_file(path)
    if source is None:
        source = known[0] if known else _guess(path, format_)
    else:
        _expect(path, source, format_, table)
    # The same file gives the same ids, whatever it is called here.
    part = known[1].part if known else stem_of(path)
    make = _make(format_, table, path, source, part, multi_turn=multi_turn)
    return source, read_prompts(table, make, strict=strict)


def settled(reading: Reading, name: str) -> Reading:
    """Return the reading as it is.

    Raises:
        DataError: it holds not one prompt.
    """
    if reading.prompts:
        return reading
    if not reading.skipped:
        raise DataError(f"{name}: holds no prompts.")
    first = reading.skipped[0]
    raise DataError(
        f"{name}: none of its {len(reading.skipped):,} rows can be used. "
        f"The first, {first.where}: {first.detail}"
    )


def _guess(path: Path, format_: str | None) -> SourceInfo:
    """Say what a file is that is none of the published ones."""
    if format_ == "ailuminate":
        name = source_of(path)
        if name in SOURCES:
            return SOURCES[name]
        # Nobody can tell whose it is: rather withhold a text than publish a members' one.
        return SOURCES["ailuminate-official"].model_copy(
            update={"name": name, "title": path.name, "prompts": None}
        )
    return SourceInfo(name=stem_of(path), title=path.name, note="A file of your own.")


def _expect(path: Path, source: SourceInfo, format_: str | None, table: Table) -> None:
    wanted = next((name for name in _FORMATS if source.name.startswith(name)), None)
    if format_ != wanted:
        raise DataError(
            f"{path}: is not a file of {source.name}; its columns are "
            f"{', '.join(table.columns)[:200] or 'none'}."
        )


def _make(
    format_: str | None,
    table: Table,
    path: Path,
    source: SourceInfo,
    part: str,
    *,
    multi_turn: bool,
) -> Make:
    if format_ == "ailuminate":
        return ailuminate_prompts(table, path, source.name, restricted=source.restricted)
    if format_ == "hh-rlhf":
        part = "" if part == source.name else part
        return hh_rlhf_prompts(source.name, part, multi_turn=multi_turn)
    if format_ == "mt-bench":
        return mt_bench_prompts(source.name)
    if format_ == "oasst1":
        return oasst_prompts(source.name)
    # Of JSON, a later row may have what the first one lacks.
    if kind_of(path) not in (".jsonl", ".json") and not set(TEXT_COLUMNS) & set(table.columns):
        raise DataError(
            f"{path} line 1: no prompt column; expected one of {', '.join(TEXT_COLUMNS)}, "
            f"found {', '.join(table.columns)[:200] or 'nothing'}."
        )
    return _own_prompts(stem_of(path))


def _own_prompts(stem: str) -> Make:
    def make(row: Row) -> Prompt:
        column = next((name for name in TEXT_COLUMNS if name in row.values), None)
        if column is None:
            close = did_you_mean("text", row.values) if row.values else ""
            detail = f"needs one of {', '.join(TEXT_COLUMNS)}.{close}"
            raise RowError(row.where, "no text", detail)
        source = str(row.values.get("source") or stem)
        return own_prompt({**row.values, "text": row.values[column]}, row, stem, source)

    return make


def own_prompt(
    values: Mapping[str, Any], row: Row, stem: str, source: str, *, restricted: bool = False
) -> Prompt:
    """Make a Prompt of values named like its fields; a missing id is made of stem and row number.

    Raises:
        RowError: a value cannot be used.
    """
    given = values.get("id")
    # Rows that were exported from a data set name the source that they are from, and its terms
    # still hold: members' text stays theirs, and a benchmark is not to be trained on.
    known = SOURCES.get(source)
    side: dict[str, Split] = {"split": "test"} if known and known.evaluation_only else {}
    return make_prompt(
        values["text"],
        row.where,
        id=f"{stem}-{row.number}" if given is None or given == "" else str(given),
        source=source,
        context=_messages(values.get("context"), row),
        category=values.get("category") or None,
        hazard=values.get("hazard") or None,
        persona=values.get("persona") or None,
        locale=values.get("locale") or None,
        principle=values.get("principle") or None,
        difficulty=values.get("difficulty") or None,
        criteria=_several(values.get("criteria")),
        tags=_several(values.get("tags")),
        restricted=restricted
        or _is_true(values.get("restricted"))
        or bool(known and known.restricted),
        **side,
    )


def _is_true(value: Any) -> bool:
    """Whether a cell says yes; in CSV everything is text."""
    return value is True or str(value or "").strip().casefold() in ("true", "yes", "1")


def _several(value: Any) -> Any:
    """Return the texts of a list, or of a cell in which ';' stands between them."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(";") if part.strip())
    return tuple(value) if isinstance(value, list) else ()


def _messages(value: Any, row: Row) -> Any:
    """Return the turns before a question: a list of role and content, in a CSV cell as JSON."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            detail = f"context: is not JSON ({error})."
            raise RowError(row.where, "wrong value", detail) from None
    return value or ()
