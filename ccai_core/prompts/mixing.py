"""A mix of prompts: categories by share, hazards and sources in balance, the same one every time.

The train side (train and validation) and the test side are mixed each for itself. A prompt is
taken once or not at all; what a share lacks is said, and filled from the others when asked for.

    mixed = mix(with_categories(prompts), MixConfig(target_size=1000))
    mixed.unmet          # e.g. train, hazard/cse: 33 wanted, 4 there
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator

from ccai_core.config import Config
from ccai_core.errors import did_you_mean
from ccai_core.prompts.ailuminate import HAZARDS
from ccai_core.prompts.apportioning import apportion, divide
from ccai_core.prompts.categories import CATEGORIES, category_of
from ccai_core.prompts.splits import normalise
from ccai_core.types import Prompt

Side = Literal["train", "test"]
SIDES: tuple[Side, ...] = ("train", "test")

UNCODED = "uncoded"
"""Stands for the hazard of prompts that are meant to harm but carry no AILuminate code."""

# A category with fewer than this does not decide how large a mix without a target size is: a cue
# that misleads must not cut a data set of hundreds down to five.
_FEW = 10


class CategoryShares(Config):
    """Shares of the categories; together 1."""

    hazard: float = Field(0.40, ge=0, le=1, description="Requests that carry a hazard.")
    ethical_dilemma: float = Field(0.25, ge=0, le=1, description="What is it right to do?")
    philosophical: float = Field(0.20, ge=0, le=1, description="What is so, and who am I?")
    practical_advice: float = Field(0.15, ge=0, le=1, description="How do I go about it?")


class MixConfig(Config):
    """How many prompts of what kind."""

    target_size: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="Prompts of the train side (train and validation); unset: as many as all "
        "shares can be met with.",
    )
    test_size: int | None = Field(
        None, ge=1, le=10_000_000, description="Prompts of the test side; unset: as target_size."
    )
    shares: CategoryShares = Field(
        default=CategoryShares(), description="Share of each category; together 1."
    )
    hazards: dict[str, float] = Field(
        {},
        description="Weights of hazards among themselves, e.g. vcr 2 cse 0; 1 where not named. "
        f"'{UNCODED}' stands for those without an AILuminate code.",
    )
    source_shares: dict[str, float] = Field(
        {},
        description="Share of a source within each category that it is in, e.g. scenarios 0.5; "
        "sources that are not named divide the rest by their size.",
    )
    top_up: bool = Field(
        True, description="Fill what a share lacks from the others, in proportion."
    )
    seed: int = Field(0, ge=0, description="Which prompts of a stratum are taken first.")

    @field_validator("shares")
    @classmethod
    def _together_one(cls, shares: CategoryShares) -> CategoryShares:
        total = math.fsum(shares.model_dump().values())
        if abs(total - 1) > 1e-6:
            each = ", ".join(f"{name} {share:g}" for name, share in shares.model_dump().items())
            raise ValueError(f"must sum to 1, but {each} sum to {total:g}; give all four")
        return shares

    @field_validator("hazards")
    @classmethod
    def _are_hazards(cls, weights: dict[str, float]) -> dict[str, float]:
        for name, weight in weights.items():
            if name not in HAZARDS and name != UNCODED:
                hint = did_you_mean(name, [*HAZARDS, UNCODED])
                raise ValueError(f"{name!r} is no hazard.{hint}")
            if not 0 <= weight < math.inf:
                raise ValueError(f"{name}: a weight is 0 or more, not {weight:g}")
        return weights

    @field_validator("source_shares")
    @classmethod
    def _at_most_one(cls, shares: dict[str, float]) -> dict[str, float]:
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name}: a share is from 0 to 1, not {share:g}")
        if (total := math.fsum(shares.values())) > 1 + 1e-6:
            raise ValueError(f"together they are {total:g}; at most 1")
        return shares


class Unmet(Config):
    """A share that could not be met."""

    side: Side = Field(description="Train side or test side.")
    stratum: str = Field(description="Category, category/hazard, or either with a source.")
    wanted: int = Field(description="Prompts that its share comes to.")
    got: int = Field(description="Prompts that could be taken.")


@dataclass(frozen=True)
class Mixed:
    """What was chosen, in the order it came in."""

    prompts: tuple[Prompt, ...]
    unmet: tuple[Unmet, ...]
    wanted: Mapping[Side, int]
    """Size of each side as asked for, or as the shares allow."""
    limited_by: Mapping[Side, str]
    """Without a size: the category that decides how large the side is."""


def mix(prompts: Sequence[Prompt], config: MixConfig) -> Mixed:
    """Choose prompts by share, and from each stratum (category, hazard, source, persona) its part.

    Args:
        prompts: cleaned, without duplicates; their categories decide.
        config: sizes and shares.
    """
    chosen: set[int] = set()
    unmet: list[Unmet] = []
    wanted: dict[Side, int] = {}
    limited_by: dict[Side, str] = {}
    for side in SIDES:
        of_side = [n for n, p in enumerate(prompts) if (p.split == "test") == (side == "test")]
        root = _tree(prompts, of_side, config)
        size = config.target_size
        if side == "test":
            size = config.test_size or size
        if size is None:
            size, limited_by[side] = _largest(root)
        wanted[side] = size
        chosen.update(root.take(size, config.top_up))
        unmet += [
            Unmet(side=side, stratum=name, wanted=share, got=got)
            for name, share, got in root.unmet(size, config.top_up)
        ]
    kept = tuple(prompt for n, prompt in enumerate(prompts) if n in chosen)
    return Mixed(kept, tuple(unmet), wanted, limited_by)


@dataclass(frozen=True)
class _Stratum:
    """A part of the prompts: divided further, or a list in the order it is taken in."""

    name: str
    weight: float
    parts: tuple[_Stratum, ...] = ()
    leaf: tuple[int, ...] = ()
    by_size: bool = True
    """Whether its parts stand for nothing but themselves: they have no share to fall short of."""
    seed: int = 0

    @property
    def size(self) -> int:
        """How many can be taken of it."""
        return len(self.leaf) + sum(part.size for part in self.parts if part.weight > 0)

    @property
    def weights(self) -> dict[str, float]:
        return {part.name: part.weight for part in self.parts}

    def take(self, count: int, top_up: bool) -> list[int]:
        """Return up to `count` of its prompts; what a part lacks is taken of the others, or not."""
        if not self.parts:
            return list(self.leaf[:count])
        if top_up or self.by_size:
            sizes = {part.name: part.size for part in self.parts}
            counts = apportion(count, self.weights, sizes, self.seed)
        else:
            counts = divide(count, self.weights, self.seed)
        return [n for part in self.parts for n in part.take(counts[part.name], top_up)]

    def unmet(self, count: int, top_up: bool) -> list[tuple[str, int, int]]:
        """Return (name, wanted, got) of the parts that give less than their share of `count`."""
        if self.by_size:
            return []
        found = []
        wanted = divide(count, self.weights, self.seed)
        for part in self.parts:
            got = len(part.take(wanted[part.name], top_up))
            if got < wanted[part.name]:
                # That its own parts have too few then goes without saying.
                found.append((part.name, wanted[part.name], got))
            else:
                found += part.unmet(wanted[part.name], top_up)
        return found


def _largest(root: _Stratum) -> tuple[int, str]:
    """Return the largest size whose shares can all be met, and the category that sets it."""
    open_ones = [part for part in root.parts if part.weight > 0]
    few = sum(part.size for part in open_ones if part.size < _FEW)
    enough = [part for part in open_ones if part.size >= _FEW]
    if not enough:
        return few, ""
    least = min(enough, key=lambda part: part.size / part.weight)
    together = math.fsum(part.weight for part in enough)
    return few + math.floor(least.size / least.weight * together + 1e-9), least.name


def _tree(prompts: Sequence[Prompt], members: Iterable[int], config: MixConfig) -> _Stratum:
    """Divide prompts by category, hazard, source and persona, each level with its weights."""
    by_category = _grouped(members, lambda n: category_of(prompts[n]))
    parts = []
    for category in CATEGORIES:
        share, of_it = getattr(config.shares, category), by_category.get(category, [])
        if category == "hazard":
            hazards = tuple(
                _sources(f"hazard/{name}", config.hazards.get(name, 1.0), found, prompts, config)
                for name, found in _grouped(of_it, lambda n: prompts[n].hazard or UNCODED).items()
            )
            parts.append(_Stratum(category, share, hazards, by_size=False, seed=config.seed))
        else:
            parts.append(_sources(category, share, of_it, prompts, config))
    return _Stratum("", 1.0, tuple(parts), by_size=False, seed=config.seed)


def _sources(
    name: str, weight: float, members: list[int], prompts: Sequence[Prompt], config: MixConfig
) -> _Stratum:
    groups = _grouped(members, lambda n: prompts[n].source)
    named = config.source_shares.keys() & groups.keys()
    # Without shares of their own, sources are represented as they are.
    weights = {source: float(len(found)) for source, found in groups.items()}
    if named:
        rest = max(0.0, 1.0 - math.fsum(config.source_shares[source] for source in sorted(named)))
        others = sum(len(found) for source, found in groups.items() if source not in named)
        for source, found in groups.items():
            share = rest * len(found) / max(1, others)
            weights[source] = config.source_shares.get(source, share)
    parts = tuple(
        _personas(f"{name}/{source}", weights[source], found, prompts, config.seed)
        for source, found in groups.items()
    )
    return _Stratum(name, weight, parts, by_size=not named, seed=config.seed)


def _personas(
    name: str, weight: float, members: list[int], prompts: Sequence[Prompt], seed: int
) -> _Stratum:
    leaves = tuple(
        _Stratum(f"{name}/{persona}", len(found), leaf=_in_order(found, prompts, seed))
        for persona, found in _grouped(members, lambda n: prompts[n].persona or "").items()
    )
    return _Stratum(name, weight, leaves, seed=seed)


def _in_order(members: list[int], prompts: Sequence[Prompt], seed: int) -> tuple[int, ...]:
    """Order by a hash: neither length, nor relevance, nor the file's order decides who is taken.

    The most relevant first would be the longest first, for long texts have more of any cue.
    """

    def key(n: int) -> tuple[bytes, int]:
        return hashlib.sha256(f"{seed}:{normalise(prompts[n].text)}".encode()).digest(), n

    return tuple(sorted(members, key=key))


def _grouped(members: Iterable[int], name_of: Callable[[int], str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for n in members:
        groups[name_of(n)].append(n)
    return dict(sorted(groups.items()))
