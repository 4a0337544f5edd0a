"""A reviewer's page: one file that works by double click and loads nothing.

Texts of models and prompts are data. They stand in the page as JSON in which no tag can begin, and
the page's script puts them there as text; a content security policy forbids any other script.

    render_page(sheet, shipped_consent(), "review@example.org")
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from ccai_core.human_evaluation.questions import (
    CHOICES,
    CONTENT_WARNING,
    HIGHEST,
    INSTRUCTIONS,
    LOWEST,
    QUESTIONS,
)
from ccai_core.human_evaluation.sheets import Sheet

# Controls, halves of characters, and what turns the order of the words around it.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
_MINUTES_AN_ITEM = 1.5


def render_page(sheet: Sheet, consent: str, contact: str) -> str:
    """Return one reviewer's page as HTML."""
    script = _resource("review.js")
    return (
        _environment()
        .get_template("review.html.j2")
        .render(
            sheet=sheet,
            data=_json(
                {
                    **sheet.model_dump(exclude={"items"}),
                    "items": [item.model_dump() for item in sheet.items],
                    "questions": [q.id for q in QUESTIONS],
                }
            ),
            questions=QUESTIONS,
            values=range(LOWEST, HIGHEST + 1),
            choices=CHOICES,
            consent=_paragraphs(consent),
            contact=contact,
            instructions=INSTRUCTIONS,
            warning=CONTENT_WARNING if any(item.harmful for item in sheet.items) else "",
            minutes=minutes(len(sheet.items)),
            style=_resource("review.css"),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def render_instructions(sheets: Sequence[Sheet], contact: str) -> str:
    """Return the text file that goes with the pages."""
    return (
        _environment()
        .get_template("instructions.txt.j2")
        .render(sheets=sheets, contact=contact, minutes=minutes, instructions=INSTRUCTIONS)
    )


def shipped_consent() -> str:
    """Return what reviewers agree to where nothing else is said."""
    return _resource("consent.txt")


def minutes(items: int) -> int:
    """Return about how long so many items take."""
    return max(5, 5 * round(items * _MINUTES_AN_ITEM / 5))


def _paragraphs(text: str) -> list[str]:
    return [p for part in re.split(r"\n\s*\n", text) if (p := " ".join(part.split()))]


def _json(value: Any) -> Markup:
    """Return JSON that can stand in a script element: no tag and no comment begins in it."""
    text = json.dumps(_printable(value), ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 (no tag can begin in it)


def _printable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _printable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(each) for each in value]
    return _UNPRINTABLE.sub("\ufffd", value) if isinstance(value, str) else value


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("ccai_core", "resources/human_evaluation"),
        autoescape=select_autoescape(("html.j2",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _resource(name: str) -> Markup:
    text = (files("ccai_core.resources") / "human_evaluation" / name).read_text("utf-8")
    return Markup(text)  # noqa: S704 (a file of this package)
