"""Look at prompt sources, get them, and check files, without printing their texts.

python -m ccai_core.prompts list
python -m ccai_core.prompts fetch hh-rlhf/harmless-base
python -m ccai_core.prompts show ailuminate-demo --texts 3
python -m ccai_core.prompts check my_prompts.csv
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ccai_core.errors import CCAIError, DataError, did_you_mean
from ccai_core.prompts.checksums import is_published
from ccai_core.prompts.fetch import data_directory, fetch, install, path_of
from ccai_core.prompts.registry import GROUPS, SOURCES, SourceInfo
from ccai_core.prompts.sources import Loaded, read_source
from ccai_core.types import Prompt

_USER_ERROR = 2
_COUNTED = ("split", "source", "category", "hazard", "persona", "locale", "principle", "difficulty")
_WARNING = (
    "CONTENT WARNING: these texts were written to draw out harmful answers. They may be offensive "
    "or disturbing."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.command == "list":
            _list()
        elif chosen.command == "fetch":
            _fetch(chosen.name, chosen.file)
        elif chosen.command == "show":
            _show(
                read_source(chosen.name, chosen.file, multi_turn=chosen.multi_turn),
                chosen.texts,
            )
        else:
            _check(read_source(_a_file(chosen.file)), chosen.all)
    except CCAIError as error:
        print(error, file=sys.stderr)
        return _USER_ERROR
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ccai_core.prompts",
        description="Sources of prompts: list, get, look, check.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the sources, their licences, and which are there")
    get = commands.add_parser("fetch", help="get a published source into the data directory")
    get.add_argument("name", help="a source, or 'hh-rlhf' for all of its parts")
    get.add_argument("--file", type=Path, help="check and copy this file, downloaded elsewhere")
    show = commands.add_parser("show", help="what a source is and holds, in counts")
    show.add_argument("name", help="a source, a prompt file, or a mapping YAML")
    show.add_argument("--file", type=Path, help="read this file as that source")
    show.add_argument("--texts", type=int, default=0, metavar="N", help="print the first N texts")
    show.add_argument(
        "--multi-turn", action="store_true", help="conversations up to their last question"
    )
    check = commands.add_parser("check", help="what of a file would be read, and what skipped")
    check.add_argument("file", help="a prompt file or a mapping YAML")
    check.add_argument(
        "--all", action="store_true", help="list every skipped row, not the first 20"
    )
    return parser


def _a_file(name: str) -> str:
    if Path(name).expanduser().is_dir():
        raise DataError(f"{name}: is a folder; give one of the files in it.")
    if not Path(name).expanduser().is_file():
        raise DataError(f"{name}: there is no such file.")
    # Also a file without an ending is meant as a file.
    return str(Path(name).expanduser().absolute())


def _list() -> None:
    rows = [("source", "prompts", "licence", "there", "note")]
    for source in SOURCES.values():
        notes = {
            "members only": source.restricted,
            "harmful": source.harmful,
            "evaluation only": source.evaluation_only,
        }
        rows.append(
            (
                source.name,
                f"{source.prompts:,}" if source.prompts else "–",
                source.licence,
                _there(source),
                ", ".join(word for word, holds in notes.items() if holds),
            )
        )
    _table(rows)
    print(f"\nFetched sources are kept in {data_directory()} (set CCAI_DATA to change it).")
    for name, members in GROUPS.items():
        print(f"`fetch {name}` gets all of {', '.join(members)}.")


def _there(source: SourceInfo) -> str:
    if not source.files:
        return "your file" if source.restricted else "shipped"
    there = [is_published(path_of(file), file) for file in source.files]
    if all(there):
        return "yes"
    if any(path_of(file).is_file() for file in source.files):
        good = sum(there)
        return f"{good} of {len(there)} files" if good else "damaged"
    return "no"


def _fetch(name: str, file: Path | None) -> None:
    names = GROUPS.get(name, (name,))
    for each in names:
        if each not in SOURCES:
            raise DataError(
                f"{each}: is no published source.{did_you_mean(each, [*SOURCES, *GROUPS])}"
            )
    for source in _installable(names, file):
        paths = [install(source, file.expanduser())] if file else fetch(source)
        for path in paths:
            print(f"{source.name}: {path}")
        print(f"  {source.licence}. {source.attribution}")
        if source.harmful:
            print("  CONTENT WARNING: holds offensive and dangerous requests by design.")


def _installable(names: Iterable[str], file: Path | None) -> list[SourceInfo]:
    """Return the sources to get; of several, with a file, the one that it belongs to."""
    sources = [SOURCES[name] for name in names]
    if file is None or len(sources) == 1:
        return sources
    path = file.expanduser()
    return [s for s in sources if any(is_published(path, f) for f in s.files)] or sources[:1]


def _show(loaded: Loaded, texts: int) -> None:
    source = loaded.source
    for name, value in (
        ("source", source.name),
        ("title", source.title),
        ("homepage", source.homepage),
        ("licence", source.licence),
        ("by", source.attribution),
        ("note", source.note),
    ):
        if value:
            print(f"{name:9} {_printable(value)}")
    if source.restricted:
        print("access    members only; artifacts hold ids and hashes, not the texts")
    if source.harmful:
        print("content   harmful by design")
    print()
    _counts(loaded)
    for name in _COUNTED:
        counts = Counter(getattr(prompt, name) for prompt in loaded.prompts)
        if set(counts) != {None} and (name != "source" or len(counts) > 1):
            shown = ", ".join(
                f"{_printable(str(k or '–'))} {n:,}"
                for k, n in sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))[:40]
            )
            print(f"by {name}: {shown}")
    if texts > 0:
        _texts(loaded.prompts[:texts], source.harmful or source.restricted)


def _counts(loaded: Loaded) -> None:
    rows = len(loaded.prompts) + len(loaded.skipped) + loaded.passed_over
    passed = f", {loaded.passed_over:,} are no prompts" if loaded.passed_over else ""
    print(
        f"{rows:,} rows: {len(loaded.prompts):,} prompts, {len(loaded.skipped):,} skipped{passed}"
    )
    for reason, count in Counter(row.reason for row in loaded.skipped).most_common():
        print(f"  skipped, {reason}: {count:,}")


def _texts(prompts: Sequence[Prompt], harmful: bool) -> None:
    print()
    if harmful:
        print(f"{_WARNING}\n")
    for prompt in prompts:
        print(f"[{_printable(prompt.id)}]")
        for turn in prompt.turns:
            before = f"{turn.role}: " if prompt.context else ""
            print(f"  {before}{_printable(turn.content)}")


def _check(loaded: Loaded, everything: bool) -> None:
    print(f"{loaded.source.name}: {_printable(loaded.source.note or loaded.source.title)}")
    _counts(loaded)
    if not loaded.skipped:
        return
    shown = loaded.skipped if everything else loaded.skipped[:20]
    print()
    _table(
        [("row", "reason", "what is wrong")]
        + [(_printable(row.where), row.reason, _printable(row.detail)) for row in shown]
    )
    if len(shown) < len(loaded.skipped):
        print(f"… and {len(loaded.skipped) - len(shown):,} more (--all)")


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows in columns as wide as their longest cell; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


def _printable(text: str) -> str:
    """Show what could steer a terminal as a box."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


if __name__ == "__main__":
    sys.exit(main())
