"""What a release is made of, read and checked to belong together.

parts = read_parts(training, evaluation, pairs, constitution)
parts.failed_gates                    # ('Capability: at least 95% kept: not measured', …)
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from ccai_core.config import Config, explain
from ccai_core.constitution import Constitution, load_constitutional_config
from ccai_core.dataset_info import DatasetInfo, read_info
from ccai_core.errors import ArtifactError, DataError
from ccai_core.evaluation.results import EvaluationResult
from ccai_core.evaluation.verdict import decisions
from ccai_core.records import ArtifactRecord, changed_files, read_record
from ccai_core.sft_config import SftConfig
from ccai_core.training_config import TrainingResult
from ccai_core.training_data import file_hash

C = TypeVar("C", bound=Config)

TRAINING_FILE, EVALUATION_FILE, MODEL_FOLDER = "training.json", "evaluation.json", "model"


class Parts(NamedTuple):
    """The artifacts of one model."""

    training: TrainingResult
    training_record: ArtifactRecord
    model: Path
    evaluation: EvaluationResult
    evaluation_record: ArtifactRecord
    pairs: Path
    info: DatasetInfo
    constitution: Constitution
    sft_record: ArtifactRecord | None
    """Of the supervised stage before the training, if there was one."""

    @property
    def base_model(self) -> str:
        """Identity of the model before any training."""
        record = self.sft_record
        return str(record.inputs["model"]) if record else self.training.base_model

    @property
    def sft(self) -> SftConfig | None:
        """Settings of the supervised stage, if there was one."""
        return SftConfig(**self.sft_record.inputs["config"]) if self.sft_record else None

    @property
    def failed_gates(self) -> tuple[str, ...]:
        """The success criteria that the evaluation does not show to be met, with the verdict."""
        found = decisions(self.evaluation.metrics, self.evaluation.judge.weak)
        return tuple(
            f"{each.criterion.title}: {each.verdict}" for each in found if each.verdict != "met"
        )


def read_parts(training: Path, evaluation: Path, pairs: Path, constitution: str) -> Parts:
    """Read the artifacts of a training, its evaluation and its pairs.

    Raises:
        ArtifactError: one is not complete, was changed, or has nothing to do with the others.
        DataError: one cannot be read.
    """
    training_record, evaluation_record = (_complete(each) for each in (training, evaluation))
    parts = Parts(
        training=_result(training / TRAINING_FILE, TrainingResult),
        training_record=training_record,
        model=training / MODEL_FOLDER,
        evaluation=_result(evaluation / EVALUATION_FILE, EvaluationResult),
        evaluation_record=evaluation_record,
        pairs=pairs,
        info=read_info(pairs),
        constitution=load_constitutional_config(constitution),
        sft_record=_stage(training.parent, training_record),
    )
    _belong_together(parts, training, evaluation)
    return parts


def _complete(folder: Path) -> ArtifactRecord:
    record = read_record(folder)
    if record is None:
        raise ArtifactError(f"{folder}: is no finished artifact. Name a folder with record.json.")
    if changed := changed_files(folder, record):
        names = ", ".join(file.name for file in changed)
        raise ArtifactError(f"{folder}: was changed since it was made ({names}). Make it again.")
    return record


def _stage(artifacts: Path, training: ArtifactRecord) -> ArtifactRecord | None:
    """Return the record of the supervised stage that a training went on from."""
    names = [name for name in training.parents if name.startswith("sft-")]
    return _complete(artifacts / names[0]) if names else None


def _result(path: Path, kind: type[C]) -> C:
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from None
    except ValidationError as error:
        raise DataError(explain(error, kind, str(path))) from None


def _belong_together(parts: Parts, training: Path, evaluation: Path) -> None:
    made, evaluated = parts.training.model, parts.evaluation.trained_model
    # By content: evaluated by its folder, a model is called after that.
    if evaluated.rpartition("@")[2] != made.revision:
        raise ArtifactError(
            f"{evaluation}: is of {evaluated}, and {training} made {made.identity}. Evaluate the "
            "model that is to be released."
        )
    # By content: the pairs may have been named as a file, and lie anywhere.
    if parts.training_record.inputs.get("pairs") != file_hash(parts.pairs):
        raise ArtifactError(f"{training}: was not trained on {parts.pairs.name}.")
    if parts.evaluation_record.inputs.get("constitution") != parts.constitution.fingerprint:
        raise ArtifactError(
            f"{evaluation}: rated by another constitution than {parts.constitution.name!r}. Name "
            "the one that was used with --constitution."
        )
