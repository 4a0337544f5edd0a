"""Where in a journal each call's record is: some 30 bytes a call, however long its text.

Keys are kept as 64-bit hashes. Two keys with the same hash (one chance in two million among ten
million calls) are told apart by whoever reads the record, which says its key.

    index = OffsetIndex()
    index.add("9f2c…", 1024)
    index.find("9f2c…")         # 1024
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

_Numbers = npt.NDArray[np.uint64]

# New entries are in a dictionary until there are so many, and an eighth of all.
_FEW = 65_536
_PART = 8


def hash_of(key: bytes) -> int:
    """Return 64 bits that stand for a key."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little")


class OffsetIndex:
    """Hash of key to offset; the last one added counts. One thread adds, others may look."""

    def __init__(self) -> None:
        nothing = np.empty(0, np.uint64)
        self._sorted: tuple[_Numbers, _Numbers] = (nothing, nothing)
        self._recent: dict[int, int] = {}
        self._new = 0

    def __len__(self) -> int:
        return len(self._sorted[0]) + self._new

    def add(self, key: str, offset: int) -> None:
        """Note where a key's record begins."""
        number = hash_of(key.encode())
        if number not in self._recent and self._find_sorted(number) is None:
            self._new += 1
        self._recent[number] = offset
        if len(self._recent) > max(_FEW, len(self._sorted[0]) // _PART):
            self._merge()

    def find(self, key: str) -> int | None:
        """Return where a key's record begins, if there is one."""
        number = hash_of(key.encode())
        # In this order: what another thread merges just now is in one of the two at any time.
        recent = self._recent.get(number)
        return self._find_sorted(number) if recent is None else recent

    def fill(
        self, numbers: npt.ArrayLike, offsets: npt.ArrayLike, without: Collection[int] = ()
    ) -> None:
        """Take hashes with their offsets, in the order in which they were added, but for some."""
        hashes, places = np.asarray(numbers, np.uint64), np.asarray(offsets, np.uint64)
        if without:
            stays = ~np.isin(hashes, np.fromiter(without, np.uint64, len(without)))
            hashes, places = hashes[stays], places[stays]
        self._sorted = _last_of_each(hashes, places)
        self._recent, self._new = {}, 0

    def offsets(self) -> list[int]:
        """Return where the records begin, in the order of the file."""
        self._merge()
        found: list[int] = np.sort(self._sorted[1]).tolist()
        return found

    def _find_sorted(self, number: int) -> int | None:
        hashes, offsets = self._sorted
        at = int(hashes.searchsorted(np.uint64(number)))
        if at < len(hashes) and int(hashes[at]) == number:
            return int(offsets[at])
        return None

    def _merge(self) -> None:
        count = len(self._recent)
        hashes = np.fromiter(self._recent.keys(), np.uint64, count)
        offsets = np.fromiter(self._recent.values(), np.uint64, count)
        self._sorted = _last_of_each(
            np.concatenate([self._sorted[0], hashes]), np.concatenate([self._sorted[1], offsets])
        )
        self._recent, self._new = {}, 0


def _last_of_each(hashes: _Numbers, offsets: _Numbers) -> tuple[_Numbers, _Numbers]:
    order = np.argsort(hashes, kind="stable")
    hashes, offsets = hashes[order], offsets[order]
    is_last = np.ones(len(hashes), bool)
    is_last[:-1] = hashes[1:] != hashes[:-1]
    return hashes[is_last], offsets[is_last]
