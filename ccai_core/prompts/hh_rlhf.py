"""Anthropic's HH-RLHF: the human's first turn, or the conversation up to the last one.

reading = read_prompts(read_table(path), hh_rlhf_prompts("hh-rlhf/harmless-base", "test"))
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from ccai_core.prompts.reading import Make, RowError, make_prompt
from ccai_core.prompts.rows import Row
from ccai_core.types import Message, Prompt, assistant, user

# Turns begin with these alone: a colon inside a turn is part of its text.
_TURN = re.compile(r"\n\n(Human|Assistant):")


def is_hh_rlhf(columns: Collection[str]) -> bool:
    """Whether a file's columns are HH-RLHF's: comparisons, or red team transcripts."""
    # With a column `prompt`, chosen and rejected are answers alone.
    return ({"chosen", "rejected"} <= set(columns) or "transcript" in columns) and not (
        {"prompt", "text", "question"} & set(columns)
    )


def hh_rlhf_prompts(source: str, part: str = "", *, multi_turn: bool = False) -> Make:
    """Return what makes a Prompt of a row.

    Args:
        source: Prompt.source.
        part: of the source that the file holds, e.g. 'train'; ids are `source-part-row`.
        multi_turn: take the last human turn that both answers share, and what came before it as
            context; else the first human turn alone.
    """
    stem = f"{source}-{part}" if part else source

    def make(row: Row) -> Prompt:
        values = row.values
        if "transcript" in values:
            turns = turns_of(values["transcript"], row.where)
        else:
            turns = turns_of(values.get("chosen"), row.where)
            if multi_turn:
                turns = _shared(turns, turns_of(values.get("rejected"), row.where))
        context, text = question(turns, row.where, last=multi_turn)
        return make_prompt(
            text,
            row.where,
            id=f"{stem}-{row.number}",
            source=source,
            context=context,
            tags=_tags(values.get("tags")),
        )

    return make


def turns_of(transcript: Any, where: str) -> list[Message]:
    r"""Return the turns of a text in which each begins with '\n\nHuman:' or '\n\nAssistant:'.

    Turns of the same speaker in a row (they occur) are one turn.

    Raises:
        RowError: it is no such text.
    """
    if not isinstance(transcript, str):
        found = type(transcript).__name__
        raise RowError(where, "no text", f"the conversation is missing (found {found}).")
    start = re.match(r"\s*(?=(?:Human|Assistant):)", transcript)
    parts = _TURN.split("\n\n" + transcript[start.end() :] if start else transcript)
    if parts[0].strip() or len(parts) == 1:
        detail = "the conversation does not begin with a 'Human:' turn."
        raise RowError(where, "no human turn", detail)
    turns: list[Message] = []
    for name, content in zip(parts[1::2], parts[2::2], strict=True):
        turn = user(content.strip()) if name == "Human" else assistant(content.strip())
        if turns and turns[-1].role == turn.role:
            both = f"{turns[-1].content}\n\n{turn.content}".strip()
            turns[-1] = turn.model_copy(update={"content": both})
        else:
            turns.append(turn)
    return turns


def question(turns: list[Message], where: str, *, last: bool) -> tuple[tuple[Message, ...], str]:
    """Return the first user turn (or the last, with what came before it as its context).

    Raises:
        RowError: there is none.
    """
    asked = [number for number, turn in enumerate(turns) if turn.role == "user"]
    if not asked:
        raise RowError(where, "no human turn", "nobody asks anything in the conversation.")
    if not last:
        return (), turns[asked[0]].content
    return tuple(turns[: asked[-1]]), turns[asked[-1]].content


def _shared(chosen: list[Message], rejected: list[Message]) -> list[Message]:
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    return chosen[:same]


def _tags(tags: Any) -> tuple[str, ...]:
    # Red team transcripts have them as a list; most have none.
    return tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()
