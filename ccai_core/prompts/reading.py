"""From the rows of a file to prompts: what cannot be used is skipped and listed, or refused.

reading = read_prompts(read_table(path), make_ailuminate_prompt)
print(len(reading.prompts), reading.skipped)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from ccai_core.config import explain
from ccai_core.control_tokens import find_control_token
from ccai_core.errors import DataError
from ccai_core.prompts.rows import BadRow, Row, Table
from ccai_core.prompts.splits import split_of
from ccai_core.types import Prompt

MOST_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that gave no prompt."""

    where: str
    """File and line, e.g. 'mine.csv line 3'."""
    reason: str
    """In a word or two, for counting: 'empty', 'too long', 'duplicate id' …"""
    detail: str
    """What is wrong and what to do, without the text itself."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file gave: rows = prompts + skipped + passed_over."""

    prompts: tuple[Prompt, ...]
    skipped: tuple[Skipped, ...]
    passed_over: int = 0
    """Rows that are no prompts by nature, such as replies in a conversation tree."""


class RowError(DataError):
    """A row that cannot be used."""

    def __init__(self, where: str, reason: str, detail: str) -> None:
        super().__init__(f"{where}: {detail}")
        self.skipped = Skipped(where, reason, detail)


# Makes the prompt of a row; None: the row is none by nature.
Make = Callable[[Row], Prompt | None]


def make_prompt(text: Any, where: str, **fields: Any) -> Prompt:
    """Build a Prompt with its split.

    Chat control tokens are kept: cleaning makes them inert, and `read_prompts` can refuse them.

    Args:
        text: the question.
        where: file and line, for the error.
        **fields: the other fields of Prompt; a `split` given here stands.

    Raises:
        RowError: no text, empty or over-long, or a field has a wrong value.
    """
    if not isinstance(text, str):
        raise RowError(where, "no text", f"the text is missing (found {type(text).__name__}).")
    text = text.strip()
    if not text:
        raise RowError(where, "empty", "the prompt is empty.")
    if len(text) > MOST_CHARACTERS:
        detail = f"the prompt has {len(text)} characters; most {MOST_CHARACTERS}."
        raise RowError(where, "too long", detail)
    try:
        prompt = Prompt(text=text, **{"split": split_of(text), **fields})
        prompt.model_dump_json()
    except ValidationError as error:
        detail = explain(error, Prompt, where).replace(f"{where}: ", "")
        raise RowError(where, "wrong value", detail) from None
    except PydanticSerializationError:
        # JSON can spell what no file can hold; better here than where the data set is written.
        detail = "the row holds half a character (a lone surrogate); mend or remove it."
        raise RowError(where, "broken character", detail) from None
    return prompt


def read_prompts(table: Table, make: Make, *, strict: bool = False) -> Reading:
    """Make a prompt of each row.

    Args:
        table: the rows.
        make: makes one prompt; raises RowError.
        strict: the first row that cannot be used, or that spells a chat control token, ends it.

    Raises:
        DataError: the file cannot be read on; or, if strict, a row cannot be used.
    """
    prompts: list[Prompt] = []
    skipped: list[Skipped] = []
    passed_over = 0
    ids: set[str] = set()
    for row in table.rows:
        try:
            prompt = _prompt(row, make, ids, strict)
        except RowError as error:
            if strict:
                raise
            skipped.append(_portable(error.skipped, table.name))
        else:
            if prompt is None:
                passed_over += 1
            else:
                prompts.append(prompt)
    return Reading(tuple(prompts), tuple(skipped), passed_over)


def _prompt(row: Row | BadRow, make: Make, ids: set[str], strict: bool) -> Prompt | None:
    if isinstance(row, BadRow):
        raise RowError(row.where, row.reason, row.detail)
    prompt = make(row)
    if prompt is None:
        return None
    if strict and (token := _control_token(prompt)):
        raise RowError(
            row.where,
            "control token",
            f"the prompt contains the chat control token {token!r}, which could open a turn of "
            "its own. Remove the line or the token.",
        )
    if prompt.id in ids:
        detail = f"two prompts have the id {prompt.id!r}; make ids unique."
        raise RowError(row.where, "duplicate id", detail)
    ids.add(prompt.id)
    return prompt


def _control_token(prompt: Prompt) -> str | None:
    said = [turn.content for turn in prompt.context] + [prompt.text]
    return next(filter(None, map(find_control_token, said)), None)


def _portable(skipped: Skipped, name: str) -> Skipped:
    """Name the file without its folder: what was skipped is kept with data sets that travel."""
    where = PurePath(name).name + skipped.where.removeprefix(name)
    return Skipped(where, skipped.reason, skipped.detail)
