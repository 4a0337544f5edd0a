"""What makes one data set another: settings that differ, rows that came, went or changed.

Rows are told apart by what they are about: a pair by prompt and principle, a prompt by its id.

    difference = compare_datasets(Path("pairs-3f2a"), Path("pairs-77c0"))
    difference.settings, len(difference.only_first)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from ccai_core.config import Config
from ccai_core.dataset_info import DatasetInfo, read_info
from ccai_core.dataset_rows import read_dataset_rows
from ccai_core.errors import DataError
from ccai_core.types import fingerprint

# How a row is named, by kind; several of the same name are numbered.
_NAMES = {"pairs": ("source", "prompt_id", "principle"), "prompts": ("source", "id")}


class Change(Config):
    """A setting, or a count, that is not the same."""

    name: str = Field(description="Which, nested ones as a.b.c.")
    first: Any = Field(description="In the first data set; None where it has none.")
    second: Any = Field(description="In the second one.")


class Difference(Config):
    """What makes one data set another."""

    settings: tuple[Change, ...] = Field(description="What they were made of.")
    counts: tuple[Change, ...] = Field(description="Rows, in all and by split, column and value.")
    only_first: tuple[str, ...] = Field(description="Rows of the first that the second lacks.")
    only_second: tuple[str, ...] = Field(description="Rows of the second that the first lacks.")
    changed: tuple[str, ...] = Field(description="Rows of both whose content differs.")
    moved: bool = Field(description="Whether rows that both have stand in another order.")
    same: int = Field(description="Rows that are the same.")

    @property
    def nothing(self) -> bool:
        """Whether both hold the very same rows in the same order."""
        return not (self.only_first or self.only_second or self.changed or self.moved)


def compare_datasets(first: Path, second: Path) -> Difference:
    """Compare two data sets of one kind.

    Raises:
        DataError: one of them cannot be read, or they are of different kinds.
    """
    infos = read_info(first), read_info(second)
    if infos[0].kind != infos[1].kind:
        raise DataError(
            f"{first} holds {infos[0].kind} and {second} holds {infos[1].kind}; only data sets of "
            "one kind can be compared."
        )
    rows = _contents(first, infos[0]), _contents(second, infos[1])
    shared = [name for name in rows[0] if name in rows[1]]
    changed = tuple(name for name in shared if rows[0][name] != rows[1][name])
    return Difference(
        settings=tuple(_changes(_flat(infos[0].made), _flat(infos[1].made))),
        counts=tuple(_changes(_tallies(infos[0]), _tallies(infos[1]))),
        only_first=tuple(name for name in rows[0] if name not in rows[1]),
        only_second=tuple(name for name in rows[1] if name not in rows[0]),
        changed=changed,
        moved=shared != [name for name in rows[1] if name in rows[0]],
        same=len(shared) - len(changed),
    )


def _contents(folder: Path, info: DatasetInfo) -> dict[str, str]:
    """Return a hash of each row by its name, in the order of the rows."""
    seen: Counter[str] = Counter()
    contents: dict[str, str] = {}
    for row in read_dataset_rows(folder, info.kind):
        name = " ".join(str(row.values.get(part)) for part in _NAMES[info.kind])
        seen[name] += 1
        number = f" #{seen[name]}" if seen[name] > 1 else ""
        contents[f"{name}{number}"] = fingerprint(row.values, 32)
    return contents


def _tallies(info: DatasetInfo) -> dict[str, Any]:
    tallies: dict[str, Any] = {"rows": info.total}
    tallies |= {str(split): count for split, count in info.rows.items()}
    for column, values in info.counts.items():
        tallies |= {f"{column} {value}": sum(of.values()) for value, of in values.items()}
    return tallies


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[f"{above}{name}"] = value
    return flat


def _changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Change]:
    for name in dict.fromkeys([*first, *second]):
        if first.get(name) != second.get(name):
            yield Change(name=name, first=first.get(name), second=second.get(name))
