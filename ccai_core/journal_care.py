"""To look after a journal: count its calls, verify its lines, repair damage, compact it.

python -m ccai_core.journal stats runs/poc/journal/calls.jsonl
"""

from __future__ import annotations

import argparse
import os
import sys
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

from ccai_core.errors import CCAIError, DataError
from ccai_core.journal import Journal, lock_for_writing
from ccai_core.journal_lines import Record, read_heads, read_lines, stats

_SHOWN = 20  # damaged lines named

_COMMANDS = {
    "stats": "count the calls, by how they ended and by model, and their tokens",
    "verify": "the same, and check every line; exit code 1 when some are damaged",
    "repair": "move damaged lines to FILE.damaged; their calls are made again by the next run",
    "compact": "leave out lines that no run would replay: replaced ones, and batches torn apart",
}
_NOTES = (
    "stats and verify may be used while a run writes to the journal; repair and compact wait for "
    "nobody: they refuse. A torn last line, of a run that was killed, is no damage: the next run "
    "cuts it off. Exit codes: 0 fine, 1 damage found by verify, 2 the file cannot be used."
)


def run(arguments: list[str] | None = None) -> int:
    """Run one command on a journal file; 1 when verify finds damage, 2 when it cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m ccai_core.journal",
        description="Look after a journal, the record of all finished calls of a workspace "
        "(WORKSPACE/journal/calls.jsonl).",
        epilog=_NOTES,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in _COMMANDS.items():
        command = commands.add_parser(name, help=what, description=f"{what.capitalize()}.")
        command.add_argument("file", type=Path, metavar="FILE", help="the journal")
    chosen = parser.parse_args(arguments)
    try:
        if not chosen.file.is_file():
            raise DataError(f"{chosen.file}: there is no such journal.")
        return _RUN[chosen.command](chosen.file)
    except CCAIError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"{chosen.file}: cannot be used ({error.strerror}).", file=sys.stderr)
    return 2


def _stats(path: Path) -> int:
    print(stats(found for _, found in read_lines(path)))
    return 0


def _verify(path: Path) -> int:
    bad: list[int] = []

    def records() -> Iterator[tuple[str, Record] | None]:
        for line, found in read_lines(path):
            if found is None:
                bad.append(line.number)
            yield found

    print(stats(records()))
    if not bad:
        return 0
    more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    print(f"damaged lines: {', '.join(map(str, bad[:_SHOWN]))}{more}", file=sys.stderr)
    return 1


def _repair(path: Path) -> int:
    with lock_for_writing(path):
        moved = repair(path)
    print(f"{moved} damaged lines moved to {path}.damaged" if moved else "nothing to repair")
    return 0


def repair(path: Path) -> int:
    """Keep good lines, move damaged ones to FILE.damaged; return how many were moved."""
    good, aside = path.with_name(f"{path.name}.repaired"), path.with_name(f"{path.name}.damaged")
    damaged = []
    with good.open("wb") as kept:
        for line, record in read_lines(path):
            if record:
                kept.write(line.raw)
            else:
                damaged.append(line.raw)
        kept.flush()
        os.fsync(kept.fileno())
    if damaged:
        with aside.open("ab") as file:
            file.writelines(damaged)
            file.flush()
            os.fsync(file.fileno())
    good.replace(path)
    return len(damaged)


def _compact(path: Path) -> int:
    before = path.stat().st_size
    dropped = compact(path)
    after = path.stat().st_size
    print(f"{dropped} lines left out; {before:,} bytes are now {after:,}")
    return 0


def compact(path: Path) -> int:
    """Keep only lines that a run would replay, in their order; return how many were left out.

    Raises:
        ArtifactError: a run has the journal open.
        DataError: a line is damaged.
    """
    with Journal.open(path) as journal:
        keep = array("Q", journal.offsets())
        smaller = path.with_name(f"{path.name}.compacted")
        wanted, dropped = iter(keep), 0
        following = next(wanted, None)
        with path.open("rb") as source, smaller.open("wb") as file:
            for head in read_heads(path):
                raw = source.read(head.end - head.start)
                if head.start == following:
                    file.write(raw)
                    following = next(wanted, None)
                else:
                    dropped += 1
            file.flush()
            os.fsync(file.fileno())
        # Still locked: nobody can have written to it meanwhile.
        smaller.replace(path)
    return dropped


_RUN: dict[str, Callable[[Path], int]] = {
    "stats": _stats,
    "verify": _verify,
    "repair": _repair,
    "compact": _compact,
}
