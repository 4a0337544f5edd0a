"""What became of every prompt of a preparation: `preparation.json` of a prompt data set.

The counts add up: read = dropped + not relevant + not chosen + kept.

    made = Preparation.model_validate_json((folder / "preparation.json").read_text())
    print(made.steps())
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from ccai_core.config import Config
from ccai_core.prompts.ailuminate import HAZARDS
from ccai_core.prompts.categories import CATEGORIES
from ccai_core.prompts.mixing import UNCODED, Unmet
from ccai_core.types import Category, Prompt, Split

Step = Literal["reading", "cleaning", "relevance", "mix"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class LeftOut(Config):
    """A row or prompt that is not in the data set. Says nothing of its text."""

    id: str = Field(description="Prompt.id; of a row that gave no prompt, its file and line.")
    source: str = Field(description="Prompt.source.")
    step: Step = Field(description="Where it fell.")
    reason: str = Field(description="Why, for counting.")
    detail: str = Field("", description="What is wrong, or what it repeats.")


class SourceCount(Config):
    """What became of the prompts of one source."""

    source: str = Field(description="Prompt.source.")
    read: int = Field(description="Prompts read.")
    dropped: int = Field(description="By cleaning.")
    not_relevant: int = Field(description="Hazard prompts that do not call for the principles.")
    not_chosen: int = Field(description="By the mix.")
    kept: int = Field(description="In the data set.")


class HazardCount(Config):
    """What became of the prompts of one hazard."""

    hazard: str = Field(description="AILuminate code, or 'uncoded'.")
    title: str = Field(description="What it stands for.")
    clean: int = Field(description="Prompts after cleaning.")
    relevant: int = Field(description="Of these, those that call for the principles.")
    train: int = Field(description="In the data set, to train on.")
    validation: int = Field(description="In the data set, held out in training.")
    test: int = Field(description="In the data set, to evaluate on.")


class StratumCount(Config):
    """Prompts of the data set by split, category, hazard and persona."""

    split: Split = Field(description="train, validation or test.")
    category: Category = Field(description="Kind of question.")
    hazard: str = Field(description="AILuminate code, 'uncoded', or empty.")
    persona: str = Field(description="AILuminate persona, or empty.")
    prompts: int = Field(description="How many.")


class Preparation(Config):
    """Counts of a preparation, in the order of its steps."""

    skipped: dict[str, int] = Field(description="Rows that gave no prompt, by reason.")
    read: int = Field(description="Prompts read.")
    changed: dict[str, int] = Field(description="Prompts kept whose text was changed, by what.")
    dropped: dict[str, int] = Field(description="Prompts that cleaning dropped, by reason.")
    not_relevant: int = Field(description="Hazard prompts that do not call for the principles.")
    not_chosen: int = Field(description="Prompts that the mix had no place for.")
    kept: int = Field(description="Prompts of the data set.")
    splits: dict[Split, int] = Field(description="Of these, by split.")
    languages: dict[str, int] = Field(description="Clean prompts by language.")
    personal_data: dict[str, int] = Field(description="Prompts that hold some, by kind.")
    withheld: int = Field(0, description="Members-only prompts written without their text.")
    sources: tuple[SourceCount, ...] = Field(description="By source.")
    hazards: tuple[HazardCount, ...] = Field(description="By hazard.")
    strata: tuple[StratumCount, ...] = Field(description="The data set in small.")
    wanted: tuple[tuple[str, int], ...] = Field(description="Size of each side by the mix.")
    limited_by: tuple[tuple[str, str], ...] = Field(
        (), description="Category that decides how large a side is, where no size was given."
    )
    unmet: tuple[Unmet, ...] = Field((), description="Shares that could not be met.")

    def steps(self) -> list[tuple[str, int]]:
        """Return (step, prompts) from what was read to what is in the data set."""
        return [
            *((f"skipped: {reason}", count) for reason, count in self.skipped.items()),
            ("read", self.read),
            *((f"dropped: {reason}", count) for reason, count in self.dropped.items()),
            ("not relevant", self.not_relevant),
            ("not chosen by the mix", self.not_chosen),
            *((f"kept: {split}", self.splits.get(split, 0)) for split in SPLITS),
        ]

    def totals(self) -> dict[str, int]:
        """Return a number a step, for records and tracking."""
        return {
            "skipped": sum(self.skipped.values()),
            "read": self.read,
            "dropped": sum(self.dropped.values()),
            "not_relevant": self.not_relevant,
            "not_chosen": self.not_chosen,
            "kept": self.kept,
        }

    def categories(self, *splits: Split) -> dict[str, int]:
        """Return the prompts of some splits by category, in a fixed order."""
        found: Counter[str] = Counter()
        for stratum in self.strata:
            if stratum.split in splits:
                found[stratum.category] += stratum.prompts
        return {category: found[category] for category in CATEGORIES if found[category]}


def count_hazards(
    clean: Sequence[Prompt], relevant: Sequence[bool], kept: Sequence[Prompt]
) -> tuple[HazardCount, ...]:
    """Count the hazards of cleaned prompts, of those that are relevant, and of those kept."""
    after = Counter(_hazard(p) for p in clean)
    calling = Counter(_hazard(p) for p, yes in zip(clean, relevant, strict=True) if yes)
    chosen = Counter((_hazard(p), p.split) for p in kept)
    titles = {**HAZARDS, UNCODED: "No AILuminate code"}
    return tuple(
        HazardCount(
            hazard=name,
            title=title,
            clean=after[name],
            relevant=calling[name],
            **{split: chosen[name, split] for split in SPLITS},
        )
        for name, title in titles.items()
        if after[name]
    )


def count_strata(kept: Sequence[Prompt]) -> tuple[StratumCount, ...]:
    """Count prompts by split, category, hazard and persona, in a fixed order."""
    return tuple(_strata(Counter((p.split, p.category, _hazard(p), p.persona or "") for p in kept)))


def _strata(counts: Counter[tuple[Split, Category | None, str, str]]) -> Iterator[StratumCount]:
    def place(key: tuple[Split, Category | None, str, str]) -> tuple[int, str, str, str]:
        split, category, hazard, persona = key
        return SPLITS.index(split), category or "", hazard, persona

    for key in sorted(counts, key=place):
        split, category, hazard, persona = key
        if category is not None:
            yield StratumCount(
                split=split, category=category, hazard=hazard, persona=persona, prompts=counts[key]
            )


def _hazard(prompt: Prompt) -> str:
    if prompt.category != "hazard":
        return ""
    return prompt.hazard or UNCODED
