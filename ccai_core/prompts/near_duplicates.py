"""Texts that ask the same in other words, found among hundreds of thousands by MinHash LSH.

A text is looked up by the letter triples of its words; what is found so is only a candidate, and
`similarity` decides. Hashes have a fixed seed: the same texts in the same order give the same
answer in every process.

    index = NearDuplicates()
    index.add("a", "How do I bake bread?")               # None: it is new
    index.add("b", "Please, how do I bake the bread")    # Match(key='a', similarity=0.98)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rensa import RMinHash, RMinHashLSH

from ccai_core.prompts.similarity import Bag, bag_of, shingles, similarity
from ccai_core.prompts.splits import normalise

# One of seven words that say something may be another. Measured in docs/prompts-cleaning.md.
THRESHOLD = 0.85
_HASHES = 128
# Two texts meet in a band with the chance J^4 (J: the share of triples in common): of those with
# J = 0.6 the 32 bands miss one in a hundred, and of those with J = 0.1 they find one in 300.
_BANDS = 32
_SEED = 1
# Candidates whose signatures agree in less are not worth comparing: J would be below 0.3.
_AGREEMENT = 0.35
# The beginning tells; comparing whole books with one another would take for ever.
_MOST_COMPARED = 4_000


class Match(NamedTuple):
    """The text that another is nearly the same as."""

    key: str
    similarity: float
    exact: bool = False
    """Whether they are the same words in the same order."""


@dataclass(frozen=True)
class _Query:
    digest: bytes
    bag: Bag
    sketch: RMinHash


class NearDuplicates:
    """Texts, each known by a key."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._keys: list[str] = []
        self._texts: list[str] = []
        self._exact: dict[bytes, int] = {}
        self._signatures = np.zeros((1024, _HASHES), dtype=np.uint32)
        # A threshold of its own has no part in a query: the bands decide what is a candidate.
        self._lsh = RMinHashLSH(0.5, _HASHES, _BANDS)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str, text: str) -> Match | None:
        """Return what `text` repeats; None: it is new, and known as `key` from now on."""
        query = _ask(text)
        if found := self._nearest(query):
            return found
        self._keep(key, text, query)
        return None

    def keep(self, key: str, text: str) -> None:
        """Know `text` as `key`, whether it repeats another or not."""
        self._keep(key, text, _ask(text))

    def find(self, text: str) -> Match | None:
        """Return the known text that `text` is nearest to, if one is near enough."""
        return self._nearest(_ask(text))

    def matches(self, text: str) -> list[Match]:
        """Return every known text that is near enough, the nearest first."""
        near = self._near(_ask(text))
        return [
            Match(self._keys[place], round(found, 4))
            for found, place in sorted(near, key=lambda match: (-match[0], match[1]))
        ]

    def _keep(self, key: str, text: str, query: _Query) -> None:
        place = len(self._keys)
        if place == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)])
        self._signatures[place] = query.sketch.digest()
        self._lsh.insert(place, query.sketch)
        self._keys.append(key)
        self._texts.append(text[:_MOST_COMPARED])
        self._exact.setdefault(query.digest, place)

    def _nearest(self, query: _Query) -> Match | None:
        if (same := self._exact.get(query.digest)) is not None:
            return Match(self._keys[same], 1.0, exact=True)
        # Of equally near ones the first.
        near = max(((found, -place) for found, place in self._near(query)), default=None)
        return Match(self._keys[-near[1]], round(near[0], 4)) if near else None

    def _near(self, query: _Query) -> Iterator[tuple[float, int]]:
        for place in self._candidates(query.sketch):
            found = similarity(query.bag, bag_of(self._texts[place]), self._threshold)
            if found >= self._threshold:
                yield found, place

    def _candidates(self, sketch: RMinHash) -> list[int]:
        places = np.array(sorted(self._lsh.query(sketch)), dtype=np.int64)
        if not len(places):
            return []
        own = np.array(sketch.digest(), dtype=np.uint32)
        agreement = (self._signatures[places] == own).mean(axis=1)
        return [int(place) for place in places[agreement >= _AGREEMENT]]


def _ask(text: str) -> _Query:
    text = text.encode(errors="replace").decode()
    # By all of it: two long texts with one beginning are alike, but not the same. A text without
    # any word ("?!") is only itself.
    plain = normalise(text) or text
    bag = bag_of(text[:_MOST_COMPARED])
    sketch = RMinHash(_HASHES, _SEED)
    sketch.update(shingles(bag))
    return _Query(hashlib.blake2b(plain.encode(), digest_size=16).digest(), bag, sketch)
