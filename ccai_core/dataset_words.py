"""Data sets in words for a terminal: lists, counts, rows and differences.

Whatever comes from data is made safe to print: no control character reaches the terminal.

    print(info_words(folder, read_info(folder)))
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from ccai_core.dataset_card import hub_licence
from ccai_core.dataset_diff import Change, Difference
from ccai_core.dataset_info import DatasetInfo, read_info, texts
from ccai_core.dataset_rows import read_dataset_rows, row_as
from ccai_core.errors import ArtifactError, CCAIError
from ccai_core.records import ArtifactRecord, changed_files, read_record
from ccai_core.types import PreferencePair, Prompt

_MOST_NAMES = 20
_WIDTH = 96


def list_words(folders: Sequence[Path]) -> str:
    """Return a table of data sets, and below it what is wrong with those that cannot be read."""
    rows, wrong = [], []
    for folder in folders:
        try:
            info, record = read_info(folder), read_record(folder)
        except CCAIError as error:
            wrong.append(printable(str(error)))
            continue
        splits = ", ".join(f"{split} {count:,}" for split, count in info.rows.items())
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        created = record.created[:16].replace("T", " ") if record else "unfinished"
        rows.append((folder.name, info.kind, f"{info.total:,}", splits, created, _bytes(size)))
    header = ("name", "kind", "rows", "splits", "created (UTC)", "size")
    return "\n".join([_columns([header, *rows]) if rows else "", *wrong]).strip()


def info_words(folder: Path, info: DatasetInfo) -> str:
    """Return what a data set holds, from where, and on what terms."""
    splits = ", ".join(f"{split} {count:,}" for split, count in info.rows.items())
    parts = [
        f"{folder.name}: {printable(info.title)}\n{info.total:,} {info.kind}: {splits}",
        "\n".join(_about(folder, info)),
        *warnings(info),
    ]
    for column, values in info.counts.items():
        counts = [
            (_short(value), *(f"{of.get(split, 0):,}" for split in info.rows))
            for value, of in values.items()
        ]
        parts.append(_columns([(column, *info.rows), *counts]))
    if info.words:
        words = [(n, str(w.median), str(w.p95), str(w.longest)) for n, w in info.words.items()]
        parts.append(_columns([("words", "median", "95%", "most"), *words]))
    if info.steps:
        steps = [(_short(name), f"{count:,}") for name, count in info.steps]
        parts.append(_columns([("step", "rows"), *steps]))
    parts.append(_columns([("source", "licence", "attribution"), *_terms(info)]))
    return "\n\n".join(part for part in parts if part)


def warnings(info: DatasetInfo) -> list[str]:
    """Return what is to be known before anything of a data set is looked at or passed on."""
    told = []
    if info.harmful:
        names = printable(", ".join(info.harmful))
        told.append(f"Content warning: prompts of {names} are harmful by design.")
    if info.restricted:
        told.append(f"Members only: {info.restricted} rows hold text that must not be passed on.")
    if info.withheld:
        told.append(f"Withheld: {info.withheld} members-only prompts are here without their text.")
    return told


def row_words(folder: Path, info: DatasetInfo, most: int) -> str:
    """Return the first rows of a data set, every text indented below its name."""
    shown = []
    for number, row in enumerate(read_dataset_rows(folder, info.kind)[:most], start=1):
        made: PreferencePair | Prompt
        if info.kind == "pairs":
            made = pair = row_as(PreferencePair, row.values, row.where)
            about = [pair.source, pair.prompt_id, pair.principle]
        else:
            made = prompt = row_as(Prompt, row.values, row.where)
            about = [prompt.source, prompt.id, prompt.principle or ""]
        lines = [f"\n--- {number}: {printable(' '.join(filter(None, about)))}"]
        for label, text in texts(made).items():
            lines.append(f"{label}:\n{_indented(text or '(withheld)')}")
        shown.append("\n".join(lines))
    return "\n".join(shown)


def difference_words(difference: Difference) -> str:
    """Return how the second of two data sets differs from the first."""
    if difference.nothing:
        head = f"The same {difference.same:,} rows in the same order."
    else:
        moved = ", in another order" if difference.moved else ""
        head = (
            f"{len(difference.only_first):,} rows only in the first, "
            f"{len(difference.only_second):,} only in the second, "
            f"{len(difference.changed):,} changed, {difference.same:,} the same{moved}."
        )
    parts = [head, _change_words("Made of", difference.settings)]
    parts.append(_change_words("Counts", difference.counts))
    named = {
        "Only in the first": difference.only_first,
        "Only in the second": difference.only_second,
        "Changed": difference.changed,
    }
    for title, names in named.items():
        if names:
            more = len(names) - _MOST_NAMES
            lines = [title, *(f"  {printable(name)}" for name in names[:_MOST_NAMES])]
            parts.append("\n".join([*lines, *([f"  and {more:,} more"] if more > 0 else [])]))
    return "\n\n".join(part for part in parts if part)


def printable(text: str) -> str:
    """Return text that a terminal shows and does nothing else with; line ends stay."""
    return "".join(
        character if character == "\n" or unicodedata.category(character)[0] != "C"
        # A tab and the like part words; an escape or a mark of direction is nothing to be seen.
        else " " if character in "\t\v\f\r\x85" else ""
        for character in text.replace("\r\n", "\n")
    )  # fmt: skip


def _about(folder: Path, info: DatasetInfo) -> Iterator[str]:
    try:
        record = read_record(folder)
    except ArtifactError as error:
        yield printable(str(error))
        record = None
    if record:
        yield from _recorded(folder, record)
    else:
        yield "without a record: its command did not finish, or it was copied"
    if info.parents:
        yield f"made from {printable(', '.join(info.parents))}"
    for name, value in info.made.items():
        if isinstance(value, str | int | float):
            yield f"{printable(name)}: {_short(str(value))}"
    yield f"licence of the whole: {hub_licence(info.sources)}"


def _recorded(folder: Path, record: ArtifactRecord) -> Iterator[str]:
    yield f"created {record.created}, content {record.content or 'not hashed'}"
    for file in changed_files(folder, record):
        yield f"DAMAGED: {file} is not as it was written"


def _terms(info: DatasetInfo) -> list[tuple[str, str, str]]:
    return [(_short(s.name), _short(s.licence), _short(s.attribution)) for s in info.sources]


def _change_words(title: str, changes: Sequence[Change]) -> str:
    if not changes:
        return ""
    lines = [
        f"  {printable(each.name)}: {_value(each.first)} → {_value(each.second)}"
        for each in changes
    ]
    return "\n".join([title, *lines])


def _value(value: object) -> str:
    return "–" if value is None else _short(str(value))


def _short(text: str) -> str:
    return textwrap.shorten(printable(text), 80, placeholder=" …") or "–"


def _indented(text: str) -> str:
    lines = [
        part
        for line in printable(text).split("\n")
        for part in textwrap.wrap(line, _WIDTH, replace_whitespace=False) or [""]
    ]
    return textwrap.indent("\n".join(lines), "    ")


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numeric = [_is_number(column[1:]) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def _is_number(cells: Sequence[str]) -> bool:
    return bool(cells) and all(cell.replace(",", "").isdigit() for cell in cells)


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.0f} kB"
