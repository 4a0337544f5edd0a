"""Every source of prompts by its name: published, shipped, or a file of your own.

loaded = read_source("ailuminate-demo")
loaded = read_source("my_prompts.csv")
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ccai_core.errors import DataError, did_you_mean
from ccai_core.prompts.fetch import data_directory, fetch
from ccai_core.prompts.files import read_file, settled
from ccai_core.prompts.mapping import read_mapping
from ccai_core.prompts.reading import Reading, Skipped
from ccai_core.prompts.registry import GROUPS, SOURCES, SourceFile, SourceInfo
from ccai_core.prompts.rows import KINDS_IN_WORDS
from ccai_core.prompts.scenarios import shipped_scenarios
from ccai_core.types import Prompt

__all__ = [
    "GROUPS",
    "SOURCES",
    "Loaded",
    "Skipped",
    "SourceFile",
    "SourceInfo",
    "data_directory",
    "read_source",
]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a source gave. No row is lost: each is a prompt, skipped, or passed over."""

    source: SourceInfo
    prompts: tuple[Prompt, ...]
    skipped: tuple[Skipped, ...] = ()
    passed_over: int = 0
    """Rows that are no prompts by nature, such as replies in a conversation tree."""


def read_source(name: str, file: Path | None = None, *, multi_turn: bool = False) -> Loaded:
    """Read a source; the files of a published one are fetched first where they are not there.

    Args:
        name: one of SOURCES, a prompt file, or a mapping YAML.
        file: read this file as the source `name`; the only way to read a members-only source.
        multi_turn: of conversations (HH-RLHF), the last question with what came before it as
            context, not the first question alone.

    Raises:
        DataError: there is no such source, it cannot be fetched, or its file cannot be used.
        ConfigError: the mapping is wrong.
    """
    if name in GROUPS:
        raise DataError(f"{name}: is several sources; name one: {', '.join(GROUPS[name])}.")
    if name in SOURCES:
        return _registered(SOURCES[name], file, multi_turn=multi_turn)
    path = Path(name).expanduser()
    if file is not None or not _like_a_file(name):
        raise DataError(_unknown(name))
    if path.suffix.lower() in (".yaml", ".yml"):
        source, reading = read_mapping(path)
    else:
        source, reading = read_file(path, multi_turn=multi_turn)
    return _loaded(source, settled(reading, name))


def _registered(source: SourceInfo, file: Path | None, *, multi_turn: bool) -> Loaded:
    if file is not None:
        _, reading = read_file(file.expanduser(), source, multi_turn=multi_turn)
        return _loaded(source, settled(reading, str(file)))
    if source.name == "scenarios":
        return Loaded(source, tuple(shipped_scenarios()))
    if not source.files:
        raise DataError(f"{source.name}: has nothing to fetch. {source.note}")
    parts = [read_file(path, source, multi_turn=multi_turn)[1] for path in fetch(source)]
    whole = Reading(
        tuple(prompt for part in parts for prompt in part.prompts),
        tuple(skipped for part in parts for skipped in part.skipped),
        sum(part.passed_over for part in parts),
    )
    return _loaded(source, settled(whole, source.name))


def _loaded(source: SourceInfo, reading: Reading) -> Loaded:
    return Loaded(source, reading.prompts, reading.skipped, reading.passed_over)


def _like_a_file(name: str) -> bool:
    return Path(name).suffix != "" or Path(name).expanduser().exists()


def _unknown(name: str) -> str:
    return (
        f"{name}: is no source of prompts.{did_you_mean(name, [*SOURCES, *GROUPS])} Or give a file "
        f"({KINDS_IN_WORDS}), or a mapping YAML (for a hub data set, too)."
    )
