"""Finds what a paper is written from: an evaluation, what it was made from, what came after it.

material = gather(config)
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ccai_core.comparison.results import Comparison
from ccai_core.comparison.traced_tables import (
    COMPARISON_FILE,
    ComparisonSources,
    comparison_sources,
)
from ccai_core.constitution import Constitution, load_constitutional_config
from ccai_core.errors import DataError
from ccai_core.evaluation.run import RESULT_FILE
from ccai_core.paper.material import Figure, Material, read_as
from ccai_core.records import RECORD_FILE, changed_files, read_record
from ccai_core.traced import Source, read_source, run_address
from flows.paper_config import PaperConfig
from infra.mlflow_store import shown
from infra.origin import content_name, find_origin, store_of

REVIEW_FILE, FIGURES_FOLDER = "expert_review.json", "figures"
_CAPTIONS = {
    "funnel": "From candidates to pairs, with every reason of rejection.",
    "curve": "Training: loss, margin and accuracy on training and held-out pairs.",
    "forest": "What training changed in each model, with intervals.",
    "radar": "All models on measures where more is better.",
    "scaling": "Measures over model size, with fitted lines and their intervals.",
}


def gather(config: PaperConfig) -> tuple[Material, dict[str, Path]]:
    """Return everything that the paper can be written from, and the pictures to be copied.

    Raises:
        DataError: something is there and cannot be read, or a named folder holds no such result.
        ConfigError: MLflow does not answer.
    """
    evaluation = config.evaluation or newest_evaluation(config.workspace)
    chain = {kind: folder for folder in _parents(evaluation) for kind in [_kind(folder)]}
    finder = _Finder(config)
    comparison = _comparison(config, finder)
    pictures = _pictures(chain, config.comparison)
    material = Material(
        pairs=finder.artifact(chain.get("pairs"), "dataset.json", "preference data"),
        pairs_record=finder.artifact(chain.get("pairs"), RECORD_FILE, "preference data, record"),
        funnel=finder.artifact(chain.get("pairs"), "funnel.json", "preference data, funnel"),
        sft=finder.artifact(chain.get("sft"), "training.json", "supervised stage"),
        training=finder.artifact(chain.get("training"), "training.json", "training"),
        training_record=finder.artifact(chain.get("training"), RECORD_FILE, "training, record"),
        evaluation=finder.artifact(evaluation, RESULT_FILE, "evaluation"),
        evaluation_record=finder.artifact(evaluation, RECORD_FILE, "evaluation, record"),
        review=_review(config, finder),
        comparison=comparison,
        constitution=_constitution(config, evaluation),
        figures={n: Figure(f"{FIGURES_FOLDER}/{n}.svg", _CAPTIONS[n]) for n in pictures},
        changed=tuple(_changed(config.out, [f for f in (*chain.values(), evaluation) if f])),
    )
    return material, pictures


def newest_evaluation(workspace: Path) -> Path | None:
    """Return the evaluation of a workspace that was finished last, if there is one.

    Raises:
        ArtifactError: a record is damaged.
    """
    folders = (workspace / "artifacts").glob("evaluation-*")
    finished = {folder: record for folder in folders if (record := read_record(folder))}
    return max(finished, key=lambda folder: finished[folder].created, default=None)


def _parents(evaluation: Path | None) -> list[Path]:
    """Return the artifacts that an evaluation's model was made from, as far as they are there."""
    record = read_record(evaluation) if evaluation else None
    if evaluation is None or record is None:
        return []
    beside = evaluation.resolve().parent
    return [beside / name for name in record.parents]


def _kind(folder: Path) -> str:
    return folder.name.rpartition("-")[0]


def _constitution(config: PaperConfig, evaluation: Path | None) -> Constitution | None:
    """Return the constitution if it is the one that the evaluation rated by."""
    record = read_record(evaluation) if evaluation else None
    found = load_constitutional_config(config.constitution)
    if record is None or record.inputs.get("constitution") != found.fingerprint:
        return None
    return found


def _changed(out: Path, folders: Iterable[Path]) -> list[str]:
    """Return the files that are not as the records of their artifacts say."""
    found = []
    for folder in folders:
        record = read_record(folder)
        # Weights are large, and no number is read from them.
        small = {n: f for n, f in record.files.items() if n.endswith(".json")} if record else {}
        if record:
            changed = changed_files(folder, record.model_copy(update={"files": small}))
            found += [f"{folder.name}/{file.name}" for file in changed]
    return found


def _comparison(config: PaperConfig, finder: _Finder) -> ComparisonSources | None:
    if config.comparison is None:
        return None
    own = finder.result("comparison", config.comparison / COMPARISON_FILE, "comparison")
    found = read_as(own, Comparison)
    if found is None:
        return None
    return comparison_sources(found, config.comparison, config.out, own.run, own.address)


def _review(config: PaperConfig, finder: _Finder) -> Source:
    if config.review is None:
        return Source("expert review", REVIEW_FILE, None)
    file = config.review / REVIEW_FILE if config.review.is_dir() else config.review
    return finder.result("expert review", file, "expert_review")


def _pictures(chain: dict[str, Path], comparison: Path | None) -> dict[str, Path]:
    """Return the pictures that are there, by what they show."""
    wanted: dict[str, Path] = {}
    if "pairs" in chain:
        wanted["funnel"] = chain["pairs"] / "plots" / "funnel.svg"
    if "training" in chain:
        wanted["curve"] = chain["training"] / "training_curve.svg"
    if comparison is not None:
        wanted |= {
            name: comparison / FIGURES_FOLDER / f"{name}.svg"
            for name in ("forest", "radar", "scaling")
        }
    return {name: path for name, path in wanted.items() if path.is_file()}


class _Finder:
    """Reads sources, each with its MLflow run."""

    def __init__(self, config: PaperConfig) -> None:
        self._config = config

    def artifact(self, folder: Path | None, file: str, name: str) -> Source:
        """Read a file of an artifact, with the run and the command that made it."""
        if folder is None:
            return Source(name, file, None)
        return self._read(name, folder / file, folder.name)

    def result(self, name: str, file: Path, kind: str) -> Source:
        """Read a result that is known to MLflow by its content.

        Raises:
            DataError: it is not there.
        """
        if not file.is_file():
            raise DataError(f"{file}: there is no such file. Name the folder that it is in.")
        return self._read(name, file, content_name(kind, file))

    def _read(self, name: str, file: Path, artifact: str) -> Source:
        uri = store_of(file.parent, self._config.tracking_uri)
        made = find_origin(uri, artifact) if uri else None
        return read_source(
            name,
            file,
            self._config.out,
            run=made.run_id if made else None,
            address=run_address(made.run_id, made.experiment_id, shown(uri or ""))
            if made
            else None,
            command=made.command or None if made else None,
        )
