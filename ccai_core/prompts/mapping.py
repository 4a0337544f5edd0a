"""A data set of your own, or of the hub, by a YAML that says which column is what.

    # forum.yaml
    file: forum.csv.gz                       # or  hub: owner/name
    columns: {text: body, id: post, hazard: label}
    values: {category: practical_advice}
    licence: CC0-1.0

source, reading = read_mapping(Path("forum.yaml"))
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from ccai_core.config import Config, load_yaml, parse_config
from ccai_core.errors import ConfigError, DataError, did_you_mean
from ccai_core.prompts.files import own_prompt
from ccai_core.prompts.hh_rlhf import question, turns_of
from ccai_core.prompts.json_rows import Found, fold
from ccai_core.prompts.reading import Make, Reading, RowError, read_prompts
from ccai_core.prompts.registry import UNKNOWN_LICENCE, SourceInfo
from ccai_core.prompts.rows import Row, Table, kind_of, read_table, table_of
from ccai_core.types import Category, Difficulty, Message, Prompt


class Columns(Config):
    """Which column holds what; capitals do not matter. What is not named is not read."""

    text: str = Field(description="The question, or the conversation; see `reading`.")
    id: str | None = Field(None, description="Unique name of the row.")
    context: str | None = Field(None, description="Turns before it: a list of role and content.")
    category: str | None = Field(None, description="Kind of question, for mixing.")
    hazard: str | None = Field(None, description="AILuminate hazard code.")
    persona: str | None = Field(None, description="AILuminate persona.")
    locale: str | None = Field(None, description="Language and country.")
    principle: str | None = Field(None, description="Principle id.")
    difficulty: str | None = Field(None, description="easy, medium or hard.")
    criteria: str | None = Field(None, description="What a good answer does: a list, or a; b.")
    tags: str | None = Field(None, description="Labels: a list, or a; b.")


class Values(Config):
    """What is the same for every row; a column wins where it is not empty."""

    category: Category | None = Field(None, description="Kind of question, for mixing.")
    hazard: str | None = Field(None, description="AILuminate hazard code.")
    persona: str | None = Field(None, description="AILuminate persona.")
    locale: str | None = Field(None, description="Language and country.")
    principle: str | None = Field(None, description="Principle id.")
    difficulty: Difficulty | None = Field(None, description="easy, medium or hard.")
    tags: tuple[str, ...] = Field((), description="Labels.")


class PromptMapping(Config):
    """How the rows of a file or a hub data set become prompts."""

    file: Path | None = Field(None, description="Data file; relative to this YAML.")
    hub: str | None = Field(None, description="Data set of the hub, owner/name.")
    subset: str | None = Field(None, description="Hub: configuration of the data set.")
    data_dir: str | None = Field(None, description="Hub: folder of the data set's repository.")
    split: str = Field("train", description="Hub: published split to read.")
    revision: str | None = Field(None, description="Hub: branch, tag or commit.")
    encoding: str | None = Field(None, description="Of a text file that is not UTF-8: cp1252 …")
    columns: Columns = Field(description="Which column holds what.")
    values: Values = Field(Values(), description="What is the same for every row.")
    reading: Literal["text", "transcript", "messages"] = Field(
        "text",
        description="The text is the question itself, a 'Human: … Assistant: …' text, or a list "
        "of role and content.",
    )
    turn: Literal["first", "last"] = Field(
        "first",
        description="Of a conversation: the first user turn alone, or the last with its context.",
    )
    source: str | None = Field(None, min_length=1, description="Its name; default: the YAML's.")
    licence: str = Field(UNKNOWN_LICENCE, description="SPDX identifier.")
    attribution: str = Field("", description="Whom to name.")
    homepage: str = Field("", description="Where to read about it.")
    restricted: bool = Field(False, description="Text stays out of artifacts.")
    harmful: bool = Field(False, description="Holds offensive or dangerous requests.")

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str | None) -> str | None:
        try:
            if name is not None:
                codecs.lookup(name)
        except LookupError:
            raise ValueError("no such encoding; common: cp1252, latin-1, utf-16") from None
        return name

    @model_validator(mode="after")
    def _one_place(self) -> PromptMapping:
        if (self.file is None) == (self.hub is None):
            raise ValueError("give either `file` or `hub`")
        return self


def read_mapping(path: Path) -> tuple[SourceInfo, Reading]:
    """Read what a mapping YAML describes.

    Raises:
        ConfigError: the YAML is wrong.
        DataError: the file or hub data set cannot be read, or lacks a column.
    """
    mapping = parse_config(PromptMapping, load_yaml(path), str(path))
    source = SourceInfo(
        name=mapping.source or path.stem,
        title=mapping.hub or str(mapping.file and mapping.file.name),
        homepage=mapping.homepage,
        licence=mapping.licence,
        attribution=mapping.attribution,
        restricted=mapping.restricted,
        harmful=mapping.harmful,
        note=f"By the mapping {path.name}.",
    )
    table = _table(mapping, path)
    return source, read_prompts(table, _prompts(mapping, source))


def _table(mapping: PromptMapping, path: Path) -> Table:
    if mapping.hub:
        table, complete = _hub_table(mapping, path), True
    else:
        file = path.parent / Path(str(mapping.file)).expanduser()
        table = read_table(file, mapping.encoding)
        # Of JSON, a later row may have what the first one lacks.
        complete = kind_of(file) not in (".jsonl", ".json")
    for name, column in mapping.columns.model_dump(exclude_none=True).items():
        if complete and _folded(column) not in table.columns:
            raise ConfigError(
                f"{path}: columns.{name}: {table.name} has no column {column!r}."
                f"{did_you_mean(_folded(column), table.columns)}"
            )
    return table


def _folded(column: str) -> str:
    return column.strip().casefold()


def _prompts(mapping: PromptMapping, source: SourceInfo) -> Make:
    columns = mapping.columns.model_dump(exclude_none=True)
    named = {name: _folded(column) for name, column in columns.items()}
    fixed = mapping.values.model_dump(exclude_none=True, exclude={"tags"})

    def make(row: Row) -> Prompt:
        values = {name: row.values.get(column) for name, column in named.items()}
        if named["text"] not in row.values:
            raise RowError(
                row.where,
                "no text",
                f"has no {named['text']!r}.{did_you_mean(named['text'], row.values)}",
            )
        if mapping.reading != "text":
            turns = _turns(values["text"], row.where, mapping.reading)
            last = mapping.turn == "last"
            values["context"], values["text"] = question(turns, row.where, last=last)
        given = {name: value for name, value in values.items() if value not in (None, "")}
        prompt = own_prompt(
            {**fixed, "text": values["text"], **given},
            row,
            source.name,
            source.name,
            restricted=source.restricted,
        )
        if not mapping.values.tags:
            return prompt
        return prompt.model_copy(update={"tags": (*prompt.tags, *mapping.values.tags)})

    return make


def _turns(value: Any, where: str, reading: str) -> list[Message]:
    if reading == "transcript":
        return turns_of(value, where)
    try:
        found = json.loads(value) if isinstance(value, str) else value
        return [Message.model_validate(fold(turn)) for turn in found]
    except (ValueError, TypeError, AttributeError, ValidationError):
        detail = "the conversation is no list of turns with `role` and `content`."
        raise RowError(where, "no text", detail) from None


def _hub_table(mapping: PromptMapping, path: Path) -> Table:
    """Return the rows of a hub data set; what was downloaded before is read without the hub."""
    import datasets

    name = str(mapping.hub)
    try:
        loaded = datasets.load_dataset(
            name,
            mapping.subset,
            data_dir=mapping.data_dir,
            split=mapping.split,
            revision=mapping.revision,
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{path}: the hub data set {name} cannot be read ({first[:300]}). Check its name, "
            "`subset` and `split`; without a network, download its file and give it as `file`."
        ) from None

    def rows() -> Iterator[Found]:
        for number, row in enumerate(_mappings(loaded), start=1):
            yield f"row {number}", fold(dict(row))

    return table_of(name, rows(), tuple(_folded(column) for column in loaded.column_names))


def _mappings(loaded: Any) -> Iterator[Mapping[str, Any]]:
    yield from loaded
