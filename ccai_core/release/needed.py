"""What a release holds only by name, and which of somebody's files are it.

names = find_prompts(recipe.evaluated, given=("mine.csv",), what="evaluation")
missing = withheld_sources(Path("release/training_data.jsonl"))
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ccai_core.dataset_files import text_hash
from ccai_core.errors import DataError
from ccai_core.prompts.given import expanded, locate
from ccai_core.prompts.registry import SOURCES
from ccai_core.release.recipe import AskedPrompts
from ccai_core.training_data import read_pairs
from ccai_core.types import PreferencePair, Prompt


def find_prompts(asked: AskedPrompts | None, given: Iterable[str], what: str) -> tuple[str, ...]:
    """Return the names or files of the prompts that a step of a release took.

    Args:
        asked: what the release says of them; none: nothing, so that what is given is taken.
        given: names and files of the user.
        what: the step, for the message.

    Raises:
        DataError: a file is not there, or a published source is no longer what it was; says which
            file must be given.
    """
    own = expanded(given)
    if asked is None:
        return own
    of_content = {locate(name).content: name for name in own}
    found, missing = [], []
    for wanted in asked.prompts:
        name = of_content.get(wanted.content)
        if name is None and wanted.name in SOURCES:
            name = wanted.name if locate(wanted.name).content == wanted.content else None
        if name is None:
            missing.append(f"  {wanted}")
        else:
            found.append(name)
    if missing:
        files = "\n".join(missing)
        raise DataError(
            f"The {what} of the release took prompts that are not in it and not here:\n{files}\n"
            "Give your copies of the very same files with --prompts FILE."
        )
    return tuple(found)


def withheld_rows(data: Path) -> list[dict[str, Any]]:
    """Return the rows of a release's training data that are ids only; other pairs have none."""
    if data.suffix != ".jsonl":
        return []
    lines = data.read_text(encoding="utf-8").split("\n")
    rows = (json.loads(line) for line in lines if line.strip())
    return [row for row in rows if "prompt_sha256" in row]


def refuse_other_pairs(data: Path, pairs: Path) -> None:
    """Pass if somebody's pairs are those that a release was trained on.

    Raises:
        DataError: they are not, or cannot be read.
    """
    own = Counter(map(_key, read_pairs(pairs)))
    lines = data.read_text(encoding="utf-8").split("\n")
    released = Counter(_key_of_row(json.loads(line)) for line in lines if line.strip())
    if own != released:
        missing = sum((released - own).values())
        more = sum((own - released).values())
        raise DataError(
            f"--pairs {pairs}: are not the pairs that the release was trained on ({missing} of "
            f"{sum(released.values())} are missing, {more} are others). Give the folder pairs-… "
            "that it was built from, or leave --pairs out to generate them again."
        )


def refuse_other_prompts(data: Path, prompts: Iterable[Prompt]) -> None:
    """Pass if all prompts of the withheld pairs are there, so that pairs can be made of them.

    Raises:
        DataError: some are not; says which source's file must be given.
    """
    there = {text_hash(prompt.text) for prompt in prompts}
    missing = Counter(
        str(row["source"]) for row in withheld_rows(data) if row["prompt_sha256"] not in there
    )
    if not missing:
        return
    lines = "\n".join(f"  {count} of {_described(name)}" for name, count in missing.items())
    raise DataError(
        "The release holds these pairs as ids and hashes only, for their prompts may not be "
        f"passed on, and their prompts are not here either:\n{lines}\n"
        "Give that source's file with --prompts FILE, and the pairs are generated again; or give "
        "the pairs themselves with --pairs FOLDER, if you have them."
    )


def _described(name: str) -> str:
    source = SOURCES.get(name)
    if source is None:
        return f"{name!r} (a file of whoever made the release)"
    where = f", {source.homepage}" if source.homepage else ""
    return f"{name!r} ({source.title}{where})"


def _key(pair: PreferencePair) -> tuple[str, ...]:
    return pair.prompt_id, text_hash(pair.prompt[-1].content), str(pair.principle)


def _key_of_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    if "prompt_sha256" in row:
        return row["prompt_id"], row["prompt_sha256"], str(row["principle"])
    return _key(PreferencePair.model_validate(row))
