"""What a traced text must keep: no number without a link, and every link true."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ccai_core.traced import resolve

_NUMBER = re.compile(r"\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_ROW = re.compile(
    r'^\| <span id="n(\d+)"></span>\1 \| (.*) \| \[([^\]]*)\]\(#(s\d+)\) \| `([^`]*)` \|$', re.M
)
_SOURCE = re.compile(r'^\| <span id="(s\d+)"></span>.*? \| \[`[^`]*`\]\(([^)]*)\) \|', re.M)


def untraced(text: str) -> list[str]:
    """Return lines with a number that no link and no name (in code) holds."""
    bare = re.sub(r"\[(?:\\.|[^\]\\])*\]\([^)]*\)|`[^`]*`|\b95%", "", text)
    return [line for line in bare.splitlines() if re.search(r"\d", line)]


def wrong(text: str, folder: Path) -> list[str]:
    """Return entries of the trace whose text has a number that is not at their place."""
    files = {
        name: json.loads((folder / file).read_text("utf-8")) for name, file in _SOURCE.findall(text)
    }
    found = []
    rows = _ROW.findall(text)
    assert rows
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    for number, shown, _, source, where in rows:
        held = list(_numbers(resolve(files[source], where)))
        for said in _NUMBER.findall(shown):
            if not any(_is(said, value) for value in held):
                found.append(f"n{number} {shown}: {said} is not at {where}")
    linked = {int(number) for number in re.findall(r"\]\(#n(\d+)\)", text)}
    assert linked == {int(row[0]) for row in rows}
    return found


def _is(said: str, value: float) -> bool:
    number = float(said.replace(",", ""))
    places = len(said.partition(".")[2].partition("e")[0])
    return any(abs(number - abs(scale * value)) <= 0.500001 * 10**-places for scale in (1, 100))


def _numbers(found: Any) -> Iterator[float]:
    if isinstance(found, dict):
        for value in found.values():
            yield from _numbers(value)
    elif isinstance(found, list):
        yield float(len(found))
        for value in found:
            yield from _numbers(value)
    elif isinstance(found, str):
        yield from (float(number.replace(",", "")) for number in _NUMBER.findall(found))
    elif isinstance(found, int | float):
        yield float(found)
        # '< 0.001'
        yield 0.001
