r"""Text in which every number links to where it is from: file, place in it, MLflow run, command.

Numbers are never typed: they are read from a source by a JSON pointer and come out as Markdown
links to a row of the trace. What a source does not have comes out as "not measured".

    trace = Trace()
    evaluation = read_source("evaluation", Path("evaluation.json"), root, run="3f2a", command="…")
    f"Safe answers: {trace.value(evaluation, '/metrics/0/trained', shares)}"
    # 'Safe answers: [74.1% (68.3% to 79.4%)](#n1)'
    markdown = "\n\n".join([text, trace.numbers(), trace.sources()])
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ccai_core.dataset_card import cell
from ccai_core.errors import DataError

NOT_MEASURED = "not measured"
# Distinct from None, which a file can hold.
_ABSENT = object()


@dataclass(frozen=True, eq=False)
class Source:
    """A JSON file that numbers are read from; equal to itself only."""

    name: str
    """What it is called in the text."""
    file: str
    """As seen from the text's folder."""
    data: Any
    """Its content; None where there is no such file."""
    sha256: str = ""
    run: str | None = None
    """MLflow run that made it."""
    address: str | None = None
    """Web address of that run, where its store is a server."""
    command: str | None = None
    """What makes it again."""

    @property
    def is_there(self) -> bool:
        """Whether the file was there."""
        return self.data is not None

    def at(self, pointer: str) -> Any:
        """Return what is at a JSON pointer; None where nothing is."""
        found = resolve(self.data, pointer)
        return None if found is _ABSENT else found


def read_source(
    name: str,
    file: Path,
    root: Path,
    *,
    run: str | None = None,
    address: str | None = None,
    command: str | None = None,
) -> Source:
    """Read a source; one that is not there has no data.

    Args:
        name: what it is called in the text.
        file: JSON.
        root: folder of the text.
        run: MLflow run that made it.
        address: web address of that run.
        command: what makes it again.

    Raises:
        DataError: it is there and cannot be read.
    """
    shown = os.path.relpath(file.resolve(), root.resolve())
    try:
        content = file.read_bytes()
        data = json.loads(content)
    except FileNotFoundError:
        return Source(name, shown, None, "", run, address, command)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({error}).") from None
    return Source(name, shown, data, hashlib.sha256(content).hexdigest(), run, address, command)


def resolve(data: Any, pointer: str) -> Any:
    """Return what is at a JSON pointer (RFC 6901), or a marker for nothing."""
    for word in pointer.split("/")[1:]:
        key = word.replace("~1", "/").replace("~0", "~")
        if isinstance(data, dict) and key in data:
            data = data[key]
        elif isinstance(data, list) and key.isdecimal() and int(key) < len(data):
            data = data[int(key)]
        else:
            return _ABSENT
    return data


def pointer(*words: str | int) -> str:
    """Return the JSON pointer to a place: of "metrics", 0 and "n" it is "/metrics/0/n"."""
    return "".join("/" + str(word).replace("~", "~0").replace("/", "~1") for word in words)


@dataclass(frozen=True)
class Entry:
    """One number of the text."""

    text: str
    source: Source
    pointer: str


@dataclass
class Trace:
    """Which numbers a text has, and where each is from."""

    entries: dict[Entry, int] = field(default_factory=dict)
    """In the order of the text, with their numbers."""

    def value(
        self,
        source: Source,
        where: str,
        form: Callable[[Any], str],
        otherwise: str = NOT_MEASURED,
    ) -> str:
        """Return what is at a pointer as a link to its row of the trace.

        `form` makes text of what is found; `otherwise` is said of what is not there, or null.
        """
        found = source.at(where)
        if found is None:
            return otherwise
        entry = Entry(form(found), source, where)
        number = self.entries.setdefault(entry, len(self.entries) + 1)
        return f"[{cell(entry.text)}](#n{number})"

    def text(self, source: Source, where: str, otherwise: str = NOT_MEASURED) -> str:
        """Return words of a source: as they are, and as a link where they hold a number."""
        found = source.at(where)
        if found is None or any(character.isdigit() for character in str(found)):
            return self.value(source, where, str, otherwise)
        return cell(found)

    def numbers(self) -> str:
        """Return the table of all numbers, in the order of the text."""
        return table(
            ("", "in the text", "source", "place in it"),
            [
                (
                    f'<span id="n{number}"></span>{number}',
                    cell(entry.text),
                    f"[{cell(entry.source.name)}](#{self._anchor(entry.source)})",
                    code(entry.pointer),
                )
                for entry, number in self.entries.items()
            ],
        )

    def sources(self) -> str:
        """Return the table of all sources: file, hash, run, command."""
        return table(
            ("source", "file", "SHA-256", "MLflow run", "made by"),
            [
                (
                    f'<span id="{self._anchor(source)}"></span>{cell(source.name)}',
                    f"[{code(source.file)}]({link(source.file)})",
                    code(source.sha256[:16]),
                    _run(source),
                    code(source.command) if source.command else "not known",
                )
                for source in self.used()
            ],
        )

    def used(self) -> list[Source]:
        """Return the sources of the numbers, in the order of the text."""
        return list(dict.fromkeys(entry.source for entry in self.entries))

    def _anchor(self, source: Source) -> str:
        return f"s{self.used().index(source) + 1}"


def _run(source: Source) -> str:
    if source.run is None:
        return "none known"
    return f"[{code(source.run)}]({link(source.address)})" if source.address else code(source.run)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table of cells that are Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """Return text of data as code: on one line, not read as Markdown."""
    shown = "".join(c for c in " ".join(text.split()) if c.isprintable()).replace("|", "¦")
    return f"`{shown.replace('`', chr(0x2CB))}`" if shown else ""


def run_address(run: str | None, experiment: str | None, tracking: str | None) -> str | None:
    """Return the web address of an MLflow run; none where its store is no server."""
    if not (run and experiment and tracking and tracking.startswith(("http://", "https://"))):
        return None
    place = f"experiments/{quote(experiment, safe='')}/runs/{quote(run, safe='')}"
    return f"{tracking.rstrip('/')}/#/{place}"


def link(target: str) -> str:
    """Return a link's target so that nothing in it ends the link."""
    return quote(target, safe="/:#.-_~?=&%@+,")
