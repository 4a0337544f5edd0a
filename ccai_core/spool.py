"""A list on the disk: rows of one kind, of which memory holds only where they begin.

Data sets may have millions of rows, and a driver's memory should not depend on that. Small lists
never reach the disk; the file of a large one has no name, so nothing is left of it after a kill.

    kept = Spool(PreferencePair, folder)
    kept.append(pair)
    kept[0], len(kept), list(kept[10:20])
"""

from __future__ import annotations

import tempfile
import weakref
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar, overload

from ccai_core.config import Config
from ccai_core.errors import ArtifactError

C = TypeVar("C", bound=Config)

_IN_MEMORY = 4 << 20  # bytes, before there is a file


class Spool(Sequence[C], Generic[C]):
    """Rows that can be appended, and read in any order.

    Args:
        kind: what the rows are.
        folder: where there is room for them; none: where temporary files are.
    """

    def __init__(self, kind: type[C], folder: Path | None = None) -> None:
        self._kind, self._folder = kind, folder
        where = None if folder is None else str(folder)
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=where)  # noqa: SIM115
        weakref.finalize(self, self._file.close)  # It lives as long as its rows are asked for.
        self._ends = array("Q", [0])

    def append(self, row: C) -> None:
        """Add a row at the end.

        Raises:
            ArtifactError: there is no room on the disk.
        """
        data = row.model_dump_json().encode()
        try:
            self._file.seek(self._ends[-1])
            self._file.write(data)
        except OSError as error:
            raise ArtifactError(
                f"{self._folder or tempfile.gettempdir()}: cannot be written ({error.strerror}). "
                "Make room and start again: what was generated is in the journal."
            ) from None
        self._ends.append(self._ends[-1] + len(data))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> C: ...

    @overload
    def __getitem__(self, index: slice) -> list[C]: ...

    def __getitem__(self, index: int | slice) -> C | list[C]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        start = self._ends[place]
        self._file.seek(start)
        return self._kind.model_validate_json(self._file.read(self._ends[place + 1] - start))

    def __iter__(self) -> Iterator[C]:
        return (self[place] for place in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sequence)
            and len(self) == len(other)
            and all(mine == its for mine, its in zip(self, other, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]  # it grows


class Picked(Sequence[C], Generic[C]):
    """Some rows of a sequence in a given order, without a copy of them."""

    def __init__(self, rows: Sequence[C], places: Sequence[int]) -> None:
        self._rows, self._places = rows, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> C: ...

    @overload
    def __getitem__(self, index: slice) -> list[C]: ...

    def __getitem__(self, index: int | slice) -> C | list[C]:
        if isinstance(index, slice):
            return [self._rows[place] for place in self._places[index]]
        return self._rows[self._places[index]]


class InTurn(Sequence[C], Generic[C]):
    """The first rows of several sequences in turn: one of each, then the next of each.

    Args:
        each: the sequences.
        count: how many rows in all; every sequence has enough.
    """

    def __init__(self, each: Sequence[Sequence[C]], count: int) -> None:
        self._each, self._count = each, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> C: ...

    @overload
    def __getitem__(self, index: slice) -> list[C]: ...

    def __getitem__(self, index: int | slice) -> C | list[C]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self._count))]
        row, of = divmod(range(self._count)[index], len(self._each))
        return self._each[of][row]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sequence)
            and len(self) == len(other)
            and all(mine == its for mine, its in zip(self, other, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]  # what it shows may grow
