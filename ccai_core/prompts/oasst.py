"""OpenAssistant conversations (OASST1): their first turns.

reading = read_prompts(read_table(path), oasst_prompts("oasst1"))
"""

from __future__ import annotations

from collections.abc import Collection

from ccai_core.prompts.ailuminate import locale_of
from ccai_core.prompts.reading import Make, RowError, make_prompt
from ccai_core.prompts.rows import Row
from ccai_core.types import Prompt


def is_oasst(columns: Collection[str]) -> bool:
    """Whether a file's columns are those of OpenAssistant's messages."""
    return {"message_id", "role", "text"} <= set(columns)


def oasst_prompts(source: str) -> Make:
    """Return what makes a Prompt of a message that begins a conversation; others are none."""

    def make(row: Row) -> Prompt | None:
        values = row.values
        if values.get("parent_id") or values.get("role") != "prompter":
            return None
        if values.get("deleted"):
            raise RowError(row.where, "deleted", "OpenAssistant marks the message as deleted.")
        return make_prompt(
            values.get("text"),
            row.where,
            id=f"{source}-{values.get('message_id') or row.number}",
            source=source,
            locale=locale_of(str(values.get("lang") or ""), row.where),
        )

    return make
