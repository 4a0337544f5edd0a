"""Rows of any of our models as Parquet: the same rows give the same bytes, and read back the same.

A column a field, in the model's order: conversations as lists of {role, content}, as TRL and chat
templates read them; what has no fixed shape as JSON text.

    write_rows(folder / "data" / "train.parquet", PreferencePair, pairs, {"index": range(9)})
    for index, values in read_rows(path): ...
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from ccai_core.config import Config
from ccai_core.errors import DataError
from ccai_core.files import whole_file
from ccai_core.types import Message

# `datasets.load_dataset` reads by the size of the first row group.
_ROW_GROUP = 5_000
_COMPRESSION, _LEVEL = "zstd", 3


def write_rows(
    path: Path, kind: type[Config], rows: Sequence[Config], extra: Mapping[str, Sequence[Any]]
) -> None:
    """Write rows and, beside their fields, `extra` columns of the same length, whole or not at all.

    Raises:
        DataError: a text cannot be stored (it is not valid Unicode).
        ArtifactError: the file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    fields = {name: _arrow(field.annotation) for name, field in kind.model_fields.items()}
    more = {name: pa.int64() if name == "index" else pa.string() for name in extra}
    # `index` comes first, the other columns after the model's own.
    order = [*(n for n in more if n == "index"), *fields, *(n for n in more if n != "index")]
    schema = pa.schema([(name, {**more, **fields}[name] or pa.string()) for name in order])
    with (
        whole_file(path) as file,
        parquet.ParquetWriter(
            file, schema, compression=_COMPRESSION, compression_level=_LEVEL
        ) as writer,
    ):
        for start in range(0, len(rows), _ROW_GROUP):
            group = slice(start, start + _ROW_GROUP)
            columns: dict[str, list[Any]] = {n: list(values[group]) for n, values in extra.items()}
            for name, of_type in fields.items():
                columns[name] = [_plain(getattr(row, name), of_type) for row in rows[group]]
            try:
                table = pa.Table.from_pydict(columns, schema=schema)
            except (UnicodeEncodeError, pa.ArrowInvalid) as error:
                raise DataError(
                    f"{path}: rows {start} to {start + len(rows[group])} cannot be stored "
                    f"({error}). A text holds half a character; clean the prompts first."
                ) from None
            writer.write_table(table, row_group_size=_ROW_GROUP)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Give the rows of a Parquet file as plain values; what is JSON text is still text.

    Raises:
        DataError: it cannot be read, or is no Parquet file or only the beginning of one.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROW_GROUP):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise DataError(
            f"{path}: is no Parquet file, or damaged ({str(error).splitlines()[0]})."
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None


def from_json(kind: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's values as `kind` takes them: JSON text read, absent values as their defaults.

    A column of structs instead of JSON text, as other tools write it, is taken as well.
    """
    ready = dict(values)
    as_json, optional = _told_apart(kind)
    for name in optional:
        if ready.get(name, name) is None:
            del ready[name]
    for name in as_json & ready.keys():
        value = ready[name]
        if isinstance(value, str):
            ready[name] = json.loads(value)
        elif isinstance(value, Mapping):
            ready[name] = {key: inner for key, inner in value.items() if inner is not None}
    return ready


@lru_cache
def _told_apart(kind: type[Config]) -> tuple[frozenset[str], frozenset[str]]:
    """Return which fields are stored as JSON text, and which have a default."""
    fields = kind.model_fields.items()
    return (
        frozenset(name for name, field in fields if _arrow(field.annotation) is None),
        frozenset(name for name, field in fields if not field.is_required()),
    )


def _arrow(annotation: Any) -> Any:
    """Return the Arrow type of a field, None for what is stored as JSON text."""
    import pyarrow as pa

    inner = [each for each in get_args(annotation) if each is not type(None)]
    if get_origin(annotation) in {Union, types.UnionType} and len(inner) == 1:
        return _arrow(inner[0])
    if get_origin(annotation) is Literal and all(isinstance(each, str) for each in inner):
        return pa.string()
    if annotation == tuple[Message, ...]:
        return pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    if annotation == tuple[str, ...]:
        return pa.list_(pa.string())
    simple = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    return simple.get(annotation)


def _plain(value: Any, of_type: Any) -> Any:
    if of_type is None:
        return None if value is None else _json(value)
    if isinstance(value, tuple):
        return [
            {"role": each.role, "content": each.content} if isinstance(each, Message) else each
            for each in value
        ]
    return value


def _json(value: Any) -> str:
    ready = value.model_dump(mode="json") if isinstance(value, Config) else value
    return json.dumps(ready, sort_keys=True, ensure_ascii=False)
