"""A release in Hugging Face's layout: weights, card, data, results, settings, sums.

build_release(parts, Terms(name="ccai-7b", licence="apache-2.0"), Path("release"), lock, versions)
"""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from ccai_core.errors import ArtifactError, ConfigError, DataError
from ccai_core.evaluation.results import EvaluationResult
from ccai_core.files import write_whole
from ccai_core.release.card import Terms, model_card
from ccai_core.release.checksums import write_checksums
from ccai_core.release.parts import EVALUATION_FILE, Parts
from ccai_core.release.training_data import write_training_data

DATA_FILE, LOCK_FILE, CONSTITUTION_FILE = (
    "training_data.jsonl",
    "constraints.txt",
    "constitution.json",
)
# What a model folder may hold that others need; nothing else leaves the workspace.
_MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.jinja",
    "*.model",
    "*.txt",
)
_STAGE = """\
echo "A supervised stage came before this training, which this script does not repeat." >&2
exit 2
"""
_REPRODUCE = """\
#!/bin/sh
# Train this model again, with the settings and package versions that it was made with.
set -eu
cd "$(dirname "$0")"
if grep -q '"prompt_sha256"' {data}; then
  echo "Some pairs are here as ids only; README.md names the sources of their prompts." >&2
  exit 2
fi
{stage}if ! python -c 'import flows'; then
  echo "Install ccai-platform at {code} first, with --constraint {lock}." >&2
  exit 2
fi
python -m flows.training --config configs/training.yaml --model "${{BASE_MODEL:-{base}}}" \\
  --no-fallback --pairs {data} --workspace "${{WORKSPACE:-../reproduced}}"
"""


def build_release(
    parts: Parts, terms: Terms, target: Path, lock: Path, versions: Mapping[str, str]
) -> dict[str, int]:
    """Write the release whole or not at all; returns how many pairs are whole, and ids only.

    Args:
        parts: what it is made of.
        terms: what the card says beside it.
        target: a folder that is not there yet.
        lock: exact versions of packages, for whoever makes it again.
        versions: what it was made with; `code` is the commit.

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
            _write_parts(parts, folder)
            shutil.copyfile(lock, folder / LOCK_FILE)
            write_whole(folder / "reproduce.sh", _script(parts, terms, versions["code"]))
            write_whole(folder / "README.md", model_card(parts, terms, counts, versions))
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


def _write_parts(parts: Parts, folder: Path) -> None:
    """Write results, settings and constitution, without a word of what may not be passed on."""
    evaluation = parts.evaluation
    if parts.evaluation_record.inputs.get("include_restricted"):
        evaluation = EvaluationResult.model_validate(evaluation.model_dump() | {"examples": ()})
    write_whole(folder / "evaluation" / EVALUATION_FILE, evaluation.model_dump_json(indent=1))
    write_whole(folder / CONSTITUTION_FILE, parts.constitution.model_dump_json(indent=1))
    settings = {"training": parts.training_record.inputs["config"]}
    write_whole(folder / "configs" / "training.yaml", yaml.safe_dump(settings, sort_keys=False))
    inputs = {
        "training": parts.training_record.inputs,
        "evaluation": parts.evaluation_record.inputs,
        "pairs": parts.info.made,
    }
    write_whole(folder / "configs" / "inputs.json", json.dumps(inputs, indent=1, default=str))


def _script(parts: Parts, terms: Terms, code: str) -> str:
    """Return what trains the model again, or says why it cannot."""
    staged = any(parent.startswith("sft-") for parent in parts.training_record.parents)
    return _REPRODUCE.format(
        data=DATA_FILE,
        lock=LOCK_FILE,
        base=_plain(terms.base_model or parts.training.base_model.partition("@")[0]),
        code=shlex.quote(code).strip("'"),
        stage=_STAGE if staged else "",
    )


def _plain(name: str) -> str:
    """Return a model's name for a script; one that a shell would read otherwise is refused."""
    if not all(c.isalnum() or c in "._-/" for c in name):
        raise ConfigError(f"--base-model {name!r}: is no name of a model on the hub.")
    return name
