"""Preference pairs for training: read, checked, held out by prompt.

Pairs that are too long are left out and counted, never cut: an answer without its end would teach
the model not to end.

    pairs = read_pairs(Path("runs/poc/artifacts/pairs-3f2a"))
    fitting = fit(pairs, tokenizer, limit=1024, over_length="drop")
    train, validation = hold_out(fitting.pairs, fraction=0.1)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jinja2 import TemplateError

from ccai_core.control_tokens import neutralise
from ccai_core.dataset_info import data_file, read_info
from ccai_core.dataset_rows import Row, read_dataset_rows, read_parquet_rows, row_as
from ccai_core.errors import DataError
from ccai_core.prompts.splits import normalise, validation_position
from ccai_core.records import sha256_of
from ccai_core.types import Message, PreferencePair, fingerprint


def read_pairs(path: Path) -> list[PreferencePair]:
    """Read preference pairs, all checked, in the order in which they were made.

    Args:
        path: a data set's folder, a Parquet file with the same columns, or a JSONL file.

    Raises:
        DataError: it cannot be read, a row is no usable pair (names it), or there are fewer than 2.
    """
    if path.is_dir():
        rows: Iterable[Row] = read_dataset_rows(path, "pairs")
    elif path.suffix == ".parquet":
        rows = (_without_index(row) for row in read_parquet_rows(path))
    else:
        rows = _json_rows(path)
    pairs = [_usable(row_as(PreferencePair, row.values, row.where), row.where) for row in rows]
    if len(pairs) < 2:
        raise DataError(f"{path}: holds {len(pairs)} preference pairs; training needs at least 2.")
    return pairs


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content; of a data set's folder, of the files with its rows.

    Raises:
        DataError: it cannot be read, or the folder is no data set.
    """
    try:
        if path.is_dir():
            files = [data_file(split) for split in read_info(path).rows]
            return fingerprint([(name, sha256_of(path / name)) for name in files], 64)
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None


def _without_index(row: Row) -> Row:
    return Row(row.where, {name: value for name, value in row.values.items() if name != "index"})


def _json_rows(path: Path) -> Iterator[Row]:
    try:
        # Not splitlines(): it takes U+2028 and others, which JSON strings may hold, for line ends.
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text.") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path} line {number}"
            yield Row(where, _json_object(line, where))


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: is not JSON ({error}).") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: must be a JSON object, found {type(record).__name__}.")
    return record


def _usable(pair: PreferencePair, where: str) -> PreferencePair:
    if problem := _unusable(pair):
        raise DataError(f"{where}: {problem}")
    return pair


def _unusable(pair: PreferencePair) -> str | None:
    """Say what makes a well-formed pair useless for training."""
    if not pair.prompt or pair.prompt[-1].role != "user":
        return "the prompt must end with a user turn."
    for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        if not side or side[0].role != "assistant":
            return f"{name} must begin with an assistant turn."
        if not any(turn.content.strip() for turn in side):
            return f"{name} is empty; an empty answer never becomes training text."
    if [turn.content.strip() for turn in pair.chosen] == [t.content.strip() for t in pair.rejected]:
        return "chosen and rejected are identical, so there is nothing to prefer."
    return None


def hold_out(
    pairs: Sequence[PreferencePair], fraction: float
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Divide pairs into (train, validation) by the text of their prompt.

    All pairs of one prompt, whatever its case, spacing or punctuation, are on one side. The side is
    a pure function of that text, except that with two prompts or more neither side stays empty.
    """
    place = {key: validation_position(key) for key in map(_key, pairs)}
    order = sorted(place, key=lambda key: place[key])
    count = sum(position < fraction for position in place.values())
    if fraction > 0 and len(order) > 1:
        count = min(max(count, 1), len(order) - 1)
    elif len(order) == 1:
        count = 0
    held = set(order[:count])
    train = [pair for pair in pairs if _key(pair) not in held]
    return train, [pair for pair in pairs if _key(pair) in held]


def _key(pair: PreferencePair) -> str:
    return normalise(" ".join(turn.content for turn in pair.prompt))


class Fitting(NamedTuple):
    """Pairs that are short enough, and how long they are."""

    pairs: list[PreferencePair]
    """Those that fit."""
    cut: int
    """How many did not."""
    longest: int
    """Tokens of the longest sequence, prompt and one answer, that fits."""
    longest_row: int
    """Tokens of the longest pair that fits, what both sequences begin with counted once."""


def fit(
    pairs: Sequence[PreferencePair],
    tokenizer: Any,
    limit: int,
    over_length: Literal["drop", "error"],
) -> Fitting:
    """Leave out pairs with more than `limit` tokens on either side.

    Raises:
        DataError: pairs are too long and `over_length` is 'error', or fewer than 2 are left.
    """
    lengths = [_lengths(pair, tokenizer) for pair in pairs]
    fitting = [pair for pair, (longer, _) in zip(pairs, lengths, strict=True) if longer <= limit]
    cut = len(pairs) - len(fitting)
    longest = max(longer for longer, _ in lengths)
    found = f"{cut} of {len(pairs)} pairs have more than {limit} tokens (longest: {longest})"
    if cut and over_length == "error":
        raise DataError(
            f"{found}. Raise max_length, or set over_length to 'drop' to leave them out."
        )
    if len(fitting) < 2:
        raise DataError(f"{found}, so that fewer than 2 are left. Raise max_length.")
    kept = [both for both in lengths if both[0] <= limit]
    return Fitting(fitting, cut, max(a for a, _ in kept), max(b for _, b in kept))


def _lengths(pair: PreferencePair, tokenizer: Any) -> tuple[int, int]:
    """Return the tokens of a pair's longer sequence, and of both with their beginning once."""
    chosen = _ids(tokenizer, (*pair.prompt, *pair.chosen))
    rejected = _ids(tokenizer, (*pair.prompt, *pair.rejected))
    shared = sum(
        1 for _ in takewhile(lambda both: both[0] == both[1], zip(chosen, rejected, strict=False))
    )
    return max(len(chosen), len(rejected)), len(chosen) + len(rejected) - shared + 1


def _ids(tokenizer: Any, turns: Sequence[Message]) -> list[int]:
    try:
        encoded = tokenizer.apply_chat_template(
            columns(turns, tokenizer.all_special_tokens), tokenize=True, return_dict=True
        )
    except TemplateError as error:
        roles = ", ".join(turn.role for turn in turns)
        raise DataError(
            f"The model's chat template refuses a conversation of {roles} ({error})."
        ) from None
    return list(encoded["input_ids"])


def rows(pairs: Sequence[PreferencePair], special: Sequence[str]) -> list[dict[str, Any]]:
    """Return pairs in TRL's conversational format: columns prompt, chosen, rejected."""
    return [
        {
            "prompt": columns(pair.prompt, special),
            "chosen": columns(pair.chosen, special),
            "rejected": columns(pair.rejected, special),
        }
        for pair in pairs
    ]


def columns(turns: Sequence[Message], special: Sequence[str]) -> list[dict[str, str]]:
    """Return turns as the plain dicts that chat templates and TRL read.

    Control tokens spelled in the text are made inert, as they were for the model that answered: a
    prompt cannot open a turn of its own in training either.
    """
    return [{"role": turn.role, "content": neutralise(turn.content, special)} for turn in turns]
