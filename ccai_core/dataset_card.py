"""The card of a data set: what it is, how it was made, what is in it, and on what terms.

Hugging Face's format: YAML for programs, then Markdown for people. Whatever comes from data or
settings is escaped; texts of the data set are not shown.

    write_whole(folder / "README.md", card(info, plots=["plots/counts.svg"]))
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import yaml

from ccai_core.dataset_info import DatasetInfo, Lengths, SourceLicence, data_file
from ccai_core.types import fingerprint

__all__ = ["SourceLicence", "card", "cell", "hub_licence", "tool_versions"]

_TOOLS = ("ccai-platform", "datasets", "pyarrow", "transformers", "trl")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_MOST_STEPS = 60
# SPDX ids that the hub knows, in its spelling.
_HUB_LICENCES = {
    "apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0", "cc-by-3.0", "cc-by-sa-3.0", "odc-by", "odbl", "bsd-3-clause", "gpl-3.0",
}  # fmt: skip
_WHAT = {
    "pairs": "Pairs of answers to the same prompt: `rejected` is a model's own response, `chosen` "
    "its revision under one principle of a constitution.",
    "prompts": "Questions for a language model, cleaned and divided into sides; pairs are made of "
    "`train` and `validation`, models are evaluated on `test`.",
}
_LOAD = {
    "pairs": 'pairs = load_dataset("path/to/this/folder", split="train")   # TRL takes it as it is',
    "prompts": 'prompts = load_dataset("path/to/this/folder", split="train")',
}


def card(info: DatasetInfo, plots: Sequence[str]) -> str:
    """Return the README.md of a data set; `plots` are files as seen from its folder."""
    front = yaml.safe_dump(_front(info), sort_keys=False, allow_unicode=True, width=math.inf)
    parts = [f"---\n{front}---", f"# {cell(info.title)}", *_notes(info), _WHAT[info.kind]]
    parts += _contents(info, plots)
    parts += ["## Licences and attribution", _terms(info)]
    parts += ["## How to load it", _load(info)]
    parts += ["## How it was made", *_provenance(info)]
    return "\n\n".join(parts) + "\n"


def hub_licence(sources: Iterable[SourceLicence]) -> str:
    """Return the licence of the whole as the hub spells it: 'other' when there are several."""
    found = {source.licence.lower() for source in sources}
    return found.pop() if len(found) == 1 and found <= _HUB_LICENCES else "other"


def cell(text: object) -> str:
    """Return text that Markdown shows as it is, on one line, in a table or outside."""
    one_line = " ".join(str(text).split())
    visible = "".join(c for c in one_line if unicodedata.category(c)[0] != "C")
    escaped = re.sub(r"([\\`*\[\]|#~])", r"\\\1", visible)
    # An underscore within a word is one; elsewhere it may begin emphasis.
    escaped = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tool_versions() -> dict[str, str]:
    """Return the versions of what writes and reads data sets."""
    found = {}
    for name in _TOOLS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _front(info: DatasetInfo) -> dict[str, Any]:
    licence = hub_licence(info.sources)
    named = {"license_name": "mixed", "license_link": "README.md"} if licence == "other" else {}
    tags = ["constitutional-ai", *(["preference", "dpo", "trl"] if info.kind == "pairs" else [])]
    files = [{"split": split, "path": data_file(split)} for split in info.rows]
    languages = [code for code in info.languages if re.fullmatch(r"[a-z]{2,3}", code)]
    return {
        # On one line: a line of dashes in it would end the YAML.
        "pretty_name": " ".join(info.title.split()),
        "license": licence,
        **named,
        **({"language": languages} if languages else {}),
        "size_categories": [next((word for most, word in _SIZES if info.total < most), "n>1M")],
        "task_categories": ["text-generation"],
        "tags": [*tags, *(["not-for-all-audiences"] if info.harmful else [])],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _notes(info: DatasetInfo) -> Iterator[str]:
    if info.harmful:
        names = ", ".join(map(cell, info.harmful))
        yield (
            f"> **Content warning.** Prompts of {names} are harmful by design, to test how models "
            "meet them. They are for research on safety."
        )
    if info.restricted:
        yield (
            f"> **Members only.** {info.restricted} rows hold text that must not be passed on. Do "
            "not publish this data set."
        )
    if info.withheld:
        yield (
            f"> **Text withheld.** {info.withheld} rows are members-only prompts: their id and the "
            "SHA-256 of their text stand for them."
        )


def _contents(info: DatasetInfo, plots: Sequence[str]) -> Iterator[str]:
    yield "## What is in it"
    yield table(["split", "rows"], [*info.rows.items(), ("all", info.total)])
    for column, values in info.counts.items():
        rows = [
            (value, *map(of.get, info.rows, [0] * len(info.rows))) for value, of in values.items()
        ]
        yield table([column, *info.rows], rows)
    if info.words:
        yield table(["words", "median", "95% have at most", "most"], _words(info.words))
    for plot in plots:
        name = plot.rsplit("/", 1)[-1].removesuffix(".svg")
        yield f"![{name.capitalize()} of this data set]({plot})"
    if info.steps:
        yield "## What was left out" if info.kind == "pairs" else "## Preparation"
        yield table(["step", "rows"], info.steps[:_MOST_STEPS])


def _words(words: Mapping[str, Lengths]) -> list[tuple[str, int, int, int]]:
    return [(name, of.median, of.p95, of.longest) for name, of in words.items()]


def _terms(info: DatasetInfo) -> str:
    rows = []
    for source in info.sources:
        marks = [word for word in ("harmful", "restricted") if getattr(source, word)]
        about = (source.attribution, source.homepage, ", ".join(marks))
        rows.append((source.name, source.licence, *about))
    return table(["source", "licence", "attribution", "homepage", "note"], rows)


def _load(info: DatasetInfo) -> str:
    split = next(iter(info.rows), "train")
    load = _LOAD[info.kind].replace('"train"', f'"{split}"')
    return f"```python\nfrom datasets import load_dataset\n\n{load}\n```"


def _provenance(info: DatasetInfo) -> Iterator[str]:
    of_inputs = fingerprint(info.made) if info.made else ""
    facts = [("fingerprint", of_inputs), ("made from", ", ".join(info.parents))]
    yield table(["what", ""], [*(fact for fact in facts if fact[1]), *tool_versions().items()])
    if info.made:
        # As JSON without a backtick, nothing in it can end the block.
        settings = json.dumps(info.made, indent=2, ensure_ascii=False).replace("`", "\\u0060")
        yield f"```json\n{settings}\n```"
    yield (
        "`record.json`, where it is beside this file, has the SHA-256 of every file and the time; "
        "`dataset.json` has the counts for programs."
    )
