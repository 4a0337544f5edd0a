"""Verdicts that MLCommons' evaluator wrote: modelgauge's annotation CSV, or a modelbench journal.

Columns of the CSV are those of modelgauge (src/modelgauge/data_schema.py, commit 12001ad): a
prompt's id, its text, the model, the answer, the annotator and `annotation_json` with `is_safe`
and, where the annotator says so, `is_valid`. A journal is that of a modelbench run
(docs/run-journal.md there); its lines "translated annotation" hold the verdicts. No text of either
file is kept.

    verdicts = read_evaluator_file(Path("annotations.csv"), prompts, model="trained-sut")
    grade(verdicts.items, standard, verdicts.evaluator, official=True)
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccai_core.errors import DataError
from ccai_core.evaluation.grades import ItemVerdict, Safety
from ccai_core.types import Prompt

_PROMPT = ("prompt_uid", "release_prompt_id")
_MODEL = ("sut_uid", "sut")
_ANNOTATOR, _ANNOTATION = ("annotator_uid",), ("annotation_json",)


@dataclass(frozen=True)
class EvaluatorVerdicts:
    """What one evaluator said of one model's answers."""

    evaluator: str
    model: str
    items: tuple[ItemVerdict, ...]


@dataclass(frozen=True)
class _Line:
    where: str
    prompt: str
    model: str
    evaluator: str
    annotation: Any


def read_evaluator_file(
    path: Path, prompts: Sequence[Prompt], model: str | None = None, evaluator: str | None = None
) -> EvaluatorVerdicts:
    """Return the verdicts on prompts that were asked; a prompt the file lacks is invalid.

    Args:
        path: an annotation CSV, or a run journal (.jsonl; unpack a .zst with `zstd -d` first).
        prompts: AILuminate prompts that were asked; hazard, persona and locale are theirs.
        model: the model under test as the file calls it; needed when there are several.
        evaluator: the annotator as the file calls it; needed when there are several.

    Raises:
        DataError: it cannot be read, is of another form, or holds several models or evaluators.
    """
    lines = list(_lines(path))
    if not lines:
        raise DataError(f"{path}: holds no annotation.")
    model = _only(path, "model", (line.model for line in lines), model)
    evaluator = _only(path, "evaluator", (line.evaluator for line in lines), evaluator)
    mine = [line for line in lines if (line.model, line.evaluator) == (model, evaluator)]
    if twice := [i for i, n in Counter(line.prompt for line in mine).items() if n > 1]:
        raise DataError(f"{path}: {len(twice)} prompts are annotated twice, e.g. {twice[0]!r}.")
    found = {line.prompt: _verdict(line) for line in mine}
    items = tuple(
        ItemVerdict(
            prompt_id=p.id, hazard=p.hazard, persona=p.persona, locale=p.locale,
            verdict=found.get(p.id, "invalid"),
        )
        for p in prompts
        if p.hazard
    )  # fmt: skip
    if not any(p.id in found for p in prompts):
        raise DataError(
            f"{path}: none of its {len(found)} prompt ids is among the {len(prompts)} prompts that "
            "were asked. Give the prompt file that the answers were made from with --prompts."
        )
    return EvaluatorVerdicts(evaluator, model, items)


def _lines(path: Path) -> Iterator[_Line]:
    if path.suffix == ".zst":
        raise DataError(f"{path}: is compressed. Unpack it first: zstd -d {path.name}")
    try:
        yield from _journal(path) if path.suffix == ".jsonl" else _table(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text.") from None


def _table(path: Path) -> Iterator[_Line]:
    # Answers may be longer than the 131,072 characters that csv allows by default.
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        names = {name.strip().lower(): name for name in reader.fieldnames or ()}
        columns = [_column(path, names, any_of) for any_of in (_PROMPT, _MODEL, _ANNOTATOR)]
        annotation = _column(path, names, _ANNOTATION)
        for number, row in enumerate(reader, start=1):
            where = f"{path} row {number}"
            prompt, model, evaluator = (str(row[column] or "").strip() for column in columns)
            try:
                value = json.loads(row[annotation] or "")
            except json.JSONDecodeError:
                raise DataError(f"{where}: {annotation} is not JSON.") from None
            yield _Line(where, prompt, model, evaluator, value)


def _column(path: Path, names: dict[str, str], any_of: tuple[str, ...]) -> str:
    for name in any_of:
        if name in names:
            return names[name]
    raise DataError(
        f"{path} line 1: column {' or '.join(any_of)} is missing. An annotation file of modelgauge "
        "has prompt_uid, prompt_text, sut_uid, sut_response, annotator_uid, annotation_json."
    )


def _journal(path: Path) -> Iterator[_Line]:
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            where = f"{path} line {number}"
            try:
                entry = json.loads(text)
            except json.JSONDecodeError:
                raise DataError(
                    f"{where}: is not JSON; a run journal has an object a line."
                ) from None
            if not isinstance(entry, dict) or entry.get("message") != "translated annotation":
                continue
            try:
                yield _Line(
                    where, str(entry["prompt_id"]), str(entry["sut"]), str(entry["annotator"]),
                    entry["annotation"],
                )  # fmt: skip
            except KeyError as error:
                raise DataError(f"{where}: the annotation has no field {error}.") from None


def _only(path: Path, what: str, names: Iterable[str], wanted: str | None) -> str:
    there = sorted(set(names))
    if wanted is not None and wanted not in there:
        raise DataError(f"{path}: has no {what} {wanted!r}; there is {', '.join(there)}.")
    if wanted is None and len(there) > 1:
        raise DataError(f"{path}: holds several {what}s; say which: {', '.join(there)}.")
    return wanted or there[0]


def _verdict(line: _Line) -> Safety:
    said = line.annotation
    if not isinstance(said, dict) or not isinstance(said.get("is_safe"), bool):
        raise DataError(f"{line.where}: the annotation has no 'is_safe' of true or false.")
    if said.get("is_valid") is False:
        return "invalid"
    return "safe" if said["is_safe"] else "unsafe"
