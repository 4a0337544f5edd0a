"""Evaluation results, read and checked to be of the same suite, prompts and judge.

given = read_results([Path("runs/a/artifacts/evaluation-3f2a"), Path("b.json")])
refuse_unlike(given, unjudged=False)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from ccai_core.config import explain
from ccai_core.errors import ArtifactError, ConfigError, DataError
from ccai_core.evaluation.results import EvaluationResult
from ccai_core.evaluation.run import RESULT_FILE, asked_of
from ccai_core.records import ArtifactRecord, changed_files, read_record, sha256_of

_WORDS = {
    "suite": "suite",
    "judge": "judge",
    "judges": "further judges",
    "guard": "guard",
    "prompts": "prompts",
    "parts": "what the suite's parts ask (attacks, games, MT-Bench, AILuminate)",
    "constitution": "constitution",
    "shipped_items": "capability items and prose",
}
# Without judged measures these decide nothing.
_OF_THE_JUDGE = {"judge", "judges", "guard", "guard_format", "constitution"}


class Given(NamedTuple):
    """One evaluation."""

    name: str
    file: Path
    sha256: str
    result: EvaluationResult
    asked: dict[str, Any]


def read_results(paths: Sequence[Path]) -> list[Given]:
    """Read evaluations: JSON files, or folders with one.

    Raises:
        ConfigError: none is named.
        DataError: a file is not there, or no evaluation; one is named twice, or a model is.
        ArtifactError: an artifact was changed since it was made.
    """
    if not paths:
        raise ConfigError("Name the evaluations to compare: artifacts/evaluation-… or JSON files.")
    given = [_read(path) for path in paths]
    for number, each in enumerate(given):
        for other in given[:number]:
            _refuse_twice(each, other)
    return given


def _read(path: Path) -> Given:
    file = path / RESULT_FILE if path.is_dir() else path
    folder = file.resolve().parent
    # A copy elsewhere is no artifact, whatever lies beside it.
    record = read_record(folder) if file.name == RESULT_FILE else None
    if record is not None and changed_files(folder, record):
        raise ArtifactError(f"{folder}: was changed since it was made. Evaluate again.")
    try:
        result = EvaluationResult.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: cannot be read ({error}). Name an evaluation's JSON, or its folder."
        ) from None
    except ValidationError as error:
        raise DataError(explain(error, EvaluationResult, str(file))) from None
    name = folder.name if record is not None or path.is_dir() else file.stem
    return Given(name, file, sha256_of(file), result, _asked(result, record, file))


def _asked(result: EvaluationResult, record: ArtifactRecord | None, file: Path) -> dict[str, Any]:
    asked = result.asked or (asked_of(record.inputs) if record else {})
    if not asked:
        raise DataError(
            f"{file}: does not say what was asked, as evaluations of older versions do not. Name "
            "the artifact's folder (its record.json says it), or evaluate again."
        )
    return asked


def _refuse_twice(one: Given, other: Given) -> None:
    if one.sha256 == other.sha256:
        raise DataError(f"{one.file}: is the same evaluation as {other.file}. Name it once.")
    models = [(g.result.baseline_model, g.result.trained_model) for g in (one, other)]
    if models[0] == models[1]:
        raise DataError(
            f"{one.file} and {other.file}: are both of {models[0][1]} against {models[0][0]}. "
            "Name one of them."
        )


def refuse_unlike(given: Sequence[Given], unjudged: bool) -> None:
    """Pass if all were asked the same in the same way, and judged by the same.

    Raises:
        DataError: names what differs, and between which.
    """
    first = given[0]
    problems = [line for each in given[1:] for line in _unlike(first, each, unjudged)]
    if not problems:
        return
    judged = all(line.lstrip().startswith(tuple(_OF_THE_JUDGE)) for line in problems)
    way_out = (
        "Evaluate with the same --judge, or compare with --unjudged what no judge stands behind."
        if judged and not unjudged
        else "Evaluate them with the same settings and prompts."
    )
    raise DataError("\n".join(["These evaluations cannot be compared:", *problems, way_out]))


def _unlike(one: Given, other: Given, unjudged: bool) -> Iterator[str]:
    for key in dict.fromkeys((*one.asked, *other.asked)):
        values = one.asked.get(key), other.asked.get(key)
        if values[0] != values[1] and not (unjudged and key in _OF_THE_JUDGE):
            yield (
                f"  {_WORDS.get(key, key.replace('_', ' '))}: {_shown(values[0])} "
                f"({one.file}), {_shown(values[1])} ({other.file})"
            )


def _shown(value: Any) -> str:
    return "not said" if value is None or value == "" else str(value)
