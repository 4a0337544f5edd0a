"""A release in Hugging Face's layout: weights, card, data, results, settings, sums.

build_release(parts, Terms(name="ccai-7b", licence="apache-2.0"), Path("release"), lock, recipe)
"""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from pathlib import Path

import yaml

from ccai_core.errors import ArtifactError, ConfigError, DataError
from ccai_core.evaluation.results import EvaluationResult
from ccai_core.files import write_whole
from ccai_core.release.card import Terms, model_card
from ccai_core.release.checksums import write_checksums
from ccai_core.release.parts import EVALUATION_FILE, Parts
from ccai_core.release.recipe import CONSTITUTION_FILE, RECIPE_FILE, Recipe
from ccai_core.release.training_data import write_training_data

DATA_FILE, LOCK_FILE = "training_data.jsonl", "constraints.txt"
# What a model folder may hold that others need; nothing else leaves the workspace.
_MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.jinja",
    "*.model",
    "*.txt",
)
_REPRODUCE = """\
#!/bin/sh
# Train this model again, evaluate it again, and compare every number with those of this release.
# Takes the options of `python -m flows.reproduce`, e.g. --dry-run, --prompts FILE, --cluster NAME.
set -eu
cd "$(dirname "$0")"
if ! python -c 'import flows'; then
  echo "Install ccai-platform at {code} first, with --constraint {lock}." >&2
  exit 2
fi
if [ -n "${{BASE_MODEL:-}}" ]; then set -- --model "$BASE_MODEL" "$@"; fi
exec python -m flows.reproduce . --workspace "${{WORKSPACE:-../reproduced}}" "$@"
"""


def build_release(
    parts: Parts, terms: Terms, target: Path, lock: Path, recipe: Recipe
) -> dict[str, int]:
    """Write the release whole or not at all; returns how many pairs are whole, and ids only.

    Args:
        parts: what it is made of.
        terms: what the card says beside it.
        target: a folder that is not there yet.
        lock: exact versions of packages, for whoever makes it again.
        recipe: how it was made; its version of `code` is the commit.

    Raises:
        ConfigError: success criteria are not shown to be met, and no reason is given.
        ArtifactError: the target is there, or cannot be written.
        DataError: the lock file cannot be read.
    """
    _pass_gates(parts, terms)
    if target.exists():
        raise ArtifactError(f"{target}: is there already. Name a new folder with --out.")
    if not lock.is_file():
        raise DataError(f"{lock}: is not there. Name a file of exact versions with --lock.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
            folder = Path(scratch) / target.name
            _copy_model(parts.model, folder)
            counts = write_training_data(parts.pairs, parts.info, folder / DATA_FILE)
            _write_parts(parts, recipe, folder)
            shutil.copyfile(lock, folder / LOCK_FILE)
            write_whole(folder / "reproduce.sh", _script(recipe.versions["code"]))
            write_whole(folder / "README.md", model_card(parts, terms, counts, recipe.versions))
            write_checksums(folder)
            folder.rename(target)
    except OSError as error:
        raise ArtifactError(
            f"{target}: cannot be written ({error.strerror or error}). Choose another folder."
        ) from None
    return counts


def _pass_gates(parts: Parts, terms: Terms) -> None:
    if parts.failed_gates and not terms.force.strip():
        gates = "\n".join(f"  {gate}" for gate in parts.failed_gates)
        raise ConfigError(
            f"The evaluation does not show that the success criteria are met:\n{gates}\n"
            "Release it all the same with --force 'the reason', which stands in its card."
        )


def _copy_model(model: Path, folder: Path) -> None:
    folder.mkdir()
    files = sorted({file for pattern in _MODEL_FILES for file in model.glob(pattern)})
    if not any(file.suffix == ".safetensors" for file in files):
        raise ArtifactError(f"{model}: holds no safetensors; there is nothing to release.")
    for file in files:
        shutil.copyfile(file, folder / file.name)


def _write_parts(parts: Parts, recipe: Recipe, folder: Path) -> None:
    """Write results, settings and constitution, without a word of what may not be passed on."""
    evaluation = parts.evaluation
    if parts.evaluation_record.inputs.get("include_restricted"):
        evaluation = EvaluationResult.model_validate(evaluation.model_dump() | {"examples": ()})
    write_whole(folder / "evaluation" / EVALUATION_FILE, evaluation.model_dump_json(indent=1))
    write_whole(folder / CONSTITUTION_FILE, parts.constitution.model_dump_json(indent=1))
    settings = {"training": parts.training_record.inputs["config"]}
    if parts.sft_record:
        settings["sft"] = parts.sft_record.inputs["config"]
    write_whole(folder / "configs" / "training.yaml", yaml.safe_dump(settings, sort_keys=False))
    write_whole(folder / RECIPE_FILE, recipe.model_dump_json(indent=1))
    inputs = {
        "training": parts.training_record.inputs,
        "evaluation": parts.evaluation_record.inputs,
        "pairs": parts.info.made,
    }
    write_whole(folder / "configs" / "inputs.json", json.dumps(inputs, indent=1, default=str))


def _script(code: str) -> str:
    return _REPRODUCE.format(lock=LOCK_FILE, code=shlex.quote(code).strip("'"))
