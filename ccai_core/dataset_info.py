"""What a data set says of itself in `dataset.json`: rows of what, from where, on what terms.

The card is written from it, and `python -m ccai_core.datasets` shows it. It is the last file of a
data set to be written, so a folder without it is not one, or not yet.

    info = read_info(Path("runs/poc/artifacts/pairs-3f2a"))
    info.rows                                # {'train': 441, 'validation': 59}
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from ccai_core.config import Config, parse_config
from ccai_core.errors import ConfigError, DataError
from ccai_core.records import DATA_FOLDER
from ccai_core.types import PreferencePair, Prompt, Split

INFO_FILE = "dataset.json"
SPLITS: tuple[Split, ...] = get_args(Split)
UNKNOWN = "NOASSERTION"  # SPDX's word for: nobody has said

Kind = Literal["prompts", "pairs"]
# What rows are counted by, in the order of the card.
_COUNTED: Mapping[Kind, tuple[str, ...]] = {
    "pairs": ("principle", "source", "hazard"),
    "prompts": ("category", "source", "hazard", "persona", "locale", "principle", "difficulty"),
}


class SourceLicence(Config):
    """The terms under which the prompts of one source may be used."""

    name: str = Field(description="Prompt.source.")
    licence: str = Field(UNKNOWN, description="SPDX id; NOASSERTION where none is known.")
    attribution: str = Field("", description="Who is to be named.")
    homepage: str = Field("", description="Where it is published.")
    harmful: bool = Field(False, description="Harmful by design: needs a warning.")
    restricted: bool = Field(False, description="Members-only: its text must not be passed on.")


class Lengths(Config):
    """How long the texts of a column are, in words."""

    median: int = Field(description="Half of them are no longer.")
    p95: int = Field(description="95% of them are no longer.")
    longest: int = Field(description="The longest one.")


class DatasetInfo(Config):
    """What `dataset.json` says."""

    kind: Kind = Field(description="prompts or pairs.")
    title: str = Field(description="What people call it.")
    rows: dict[Split, int] = Field(description="Rows by split, of the splits that have any.")
    counts: dict[str, dict[str, dict[Split, int]]] = Field(
        description="Rows by column, value and split."
    )
    words: dict[str, Lengths] = Field(description="Lengths of the texts, by column.")
    languages: tuple[str, ...] = Field((), description="ISO 639 codes, as far as they are known.")
    sources: tuple[SourceLicence, ...] = Field(description="Where the prompts are from.")
    restricted: int = Field(0, description="Rows that hold members-only text.")
    withheld: int = Field(0, description="Rows that hold id and hash of a text, not the text.")
    made: dict[str, Any] = Field(default_factory=dict, description="What it was made of.")
    parents: tuple[str, ...] = Field((), description="Names of the artifacts it was made from.")
    steps: tuple[tuple[str, int], ...] = Field((), description="The way to these rows, counted.")

    @property
    def total(self) -> int:
        """All rows."""
        return sum(self.rows.values())

    @property
    def harmful(self) -> tuple[str, ...]:
        """Names of the sources that are harmful by design."""
        return tuple(source.name for source in self.sources if source.harmful)


def data_file(split: Split) -> str:
    """Return where a split's rows are, from the data set's folder."""
    return f"{DATA_FOLDER}/{split}.parquet"


def is_dataset(folder: Path) -> bool:
    """Whether a folder is a data set of ours, whole as far as its own description goes."""
    return (folder / INFO_FILE).is_file()


def read_info(folder: Path) -> DatasetInfo:
    """Return what a data set says of itself.

    Raises:
        DataError: the folder is no data set, is half made, or its description is damaged.
    """
    path = folder / INFO_FILE
    if not path.is_file():
        raise DataError(_not_a_dataset(folder))
    try:
        info = parse_config(DatasetInfo, json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}). Remove {folder} to make it again."
        ) from None
    if missing := [name for name in map(data_file, info.rows) if not (folder / name).is_file()]:
        raise DataError(
            f"{folder}: {', '.join(missing)} is missing. Remove the folder to make it again."
        )
    return info


def _not_a_dataset(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}: there is no such folder."
    if (folder / "pairs.jsonl").is_file():
        return f"{folder}: is of an earlier version; give {folder / 'pairs.jsonl'} instead."
    if (folder / DATA_FOLDER).is_dir():
        return (
            f"{folder}: has no {INFO_FILE}, so it is half made (run its command again) or somebody "
            f"else's: then give one of the files in {folder / DATA_FOLDER}."
        )
    return f"{folder}: is no data set; one has a {INFO_FILE} and rows in {DATA_FOLDER}/."


def count_rows(
    kind: Kind, rows: Iterable[PreferencePair | Prompt], splits: Sequence[Split]
) -> dict[str, dict[str, dict[Split, int]]]:
    """Count rows by column, value and split, most frequent values first; no column without any."""
    tallies: dict[str, Counter[tuple[str, Split]]] = {name: Counter() for name in _COUNTED[kind]}
    for row, split in zip(rows, splits, strict=True):
        for name, tally in tallies.items():
            if value := getattr(row, name, None):
                tally[str(value), split] += 1
    return {name: _by_value(tally) for name, tally in tallies.items() if tally}


def _by_value(tally: Counter[tuple[str, Split]]) -> dict[str, dict[Split, int]]:
    total: Counter[str] = Counter()
    for (value, _), count in tally.items():
        total[value] += count
    order = sorted(total, key=lambda value: (-total[value], value))
    return {
        value: {split: tally[value, split] for split in SPLITS if tally[value, split]}
        for value in order
    }


def lengths(words: Sequence[int]) -> Lengths:
    """Summarise how many words texts have; of at least one text."""
    order = sorted(words)

    def at(share: float) -> int:
        return order[min(len(order) - 1, int(share * len(order)))]

    return Lengths(median=at(0.5), p95=at(0.95), longest=order[-1])


def word_counts(rows: Iterable[PreferencePair | Prompt]) -> dict[str, list[int]]:
    """Return the number of words of every text, by column; of withheld texts none."""
    counts: dict[str, list[int]] = {}
    for row in rows:
        for name, text in texts(row).items():
            if text:
                counts.setdefault(name, []).append(len(text.split()))
    return counts


def texts(row: PreferencePair | Prompt) -> dict[str, str]:
    """Return the texts of a row by name, the turns of a conversation one after the other."""
    if isinstance(row, Prompt):
        return {"prompt": "\n\n".join(turn.content for turn in row.turns)}
    sides = {"prompt": row.prompt, "rejected": row.rejected, "chosen": row.chosen}
    return {name: "\n\n".join(turn.content for turn in turns) for name, turns in sides.items()}
