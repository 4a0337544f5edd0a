"""What a promotion does: read the evaluation, check it, register the model, move the alias.

summary = run_promotion(PromoteConfig(evaluation=Path("runs/poc/artifacts/evaluation-3f2a")))
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ccai_core.errors import ConfigError, DataError
from ccai_core.evaluation.results import EvaluationResult
from ccai_core.evaluation.run import RESULT_FILE
from ccai_core.models import resolve_model
from ccai_core.promotion import Check, check_promotion
from ccai_core.records import read_record
from flows.promote_config import PromoteConfig
from flows.results import Summary
from infra.registry import Registry, Version


class Case(NamedTuple):
    """A model and the evaluation that speaks for it."""

    result: EvaluationResult
    folder: Path
    """The evaluation's artifact."""
    model: Path
    pairs: Path | None

    @property
    def about(self) -> dict[str, str]:
        """What the registry is told of the model."""
        found = {
            "base": self.result.baseline_model,
            "evaluation": str(self.folder),
            "suite": self.result.suite,
        }
        return {**found, **({"pairs": str(self.pairs)} if self.pairs else {})}


def plan_promotion(config: PromoteConfig) -> str:
    """Say what would be promoted, with every check.

    Raises:
        DataError: the evaluation cannot be used, or it is of another model.
        ConfigError: neither an evaluation nor undo was asked for.
    """
    if config.undo:
        moves = _registry(config).moves(config.to)
        said = f"{moves[-1]['when']}: {moves[-1]['why']}" if moves else "there was none"
        return f"Takes back the last promotion to {config.to} of {config.registered!r} ({said})"
    case = read_case(config)
    checks = check_promotion(case.result, config.checks, config.to)
    return "\n".join([f"{case.result.trained_model} to {config.to}:", *map(_line, checks)])


def run_promotion(config: PromoteConfig) -> Summary:
    """Promote, or say why not; or take the last promotion back.

    Raises:
        DataError: the evaluation cannot be used, or does not show what is asked.
    """
    registry = _registry(config)
    if config.undo:
        now = registry.undo(config.to)
        return _done(registry, config, now, f"The last promotion to {config.to} was taken back.")
    case = read_case(config)
    version = registry.register(case.model, case.result.trained_model, case.about)
    checks = check_promotion(case.result, config.checks, config.to)
    missed = [check for check in checks if not check.passed]
    if missed and not config.override:
        registry.move("candidate", version.number, "registered for promotion")
        raise DataError(
            f"{version.identity} stays candidate (version {version.number}); it is not shown that "
            f"it may be {config.to}:\n" + "\n".join(map(_line, missed)) + "\nMeasure on more "
            "items, or say --override 'the reason' if you know better."
        )
    why = f"override: {config.override}" if missed else "every check passed"
    registry.move(config.to, version.number, why)
    return _done(
        registry, config, version, f"{version.identity} is {config.to} now: {why}.", checks
    )


def read_case(config: PromoteConfig) -> Case:
    """Return the evaluation and its model, which are checked to belong together.

    Raises:
        ConfigError: no evaluation was given.
        DataError: it is not there or not complete, or the model is another one.
    """
    if config.evaluation is None:
        raise ConfigError("--evaluation: give the folder of an evaluation, or --undo.")
    folder = config.evaluation.expanduser().resolve()
    record = read_record(folder) if folder.is_dir() else None
    if record is None:
        raise DataError(
            f"--evaluation {config.evaluation}: is no finished evaluation. Give an artifact's "
            "folder, such as runs/poc/artifacts/evaluation-3f2a."
        )
    result = EvaluationResult.model_validate_json(
        (folder / RESULT_FILE).read_text(encoding="utf-8")
    )
    made = [folder.parent / name for name in record.parents]
    model = config.trained or next((m / "model" for m in made if (m / "model").is_dir()), None)
    if model is None:
        raise DataError(
            f"--evaluation {config.evaluation}: its record names no trained model beside it. Name "
            "the model's folder with --trained."
        )
    found = resolve_model(str(model.expanduser().resolve()), fallback=False)
    # A folder's name is not what a model is called; the hash of its weights is what it is.
    if found.revision != result.trained_model.rpartition("@")[2]:
        raise DataError(
            f"{model} has the weights {found.revision}; the evaluation is of "
            f"{result.trained_model}. Evaluate this model, or name the other one."
        )
    pairs = next((each for each in made if each.name.startswith("pairs-")), None)
    return Case(result, folder, model.expanduser().resolve(), pairs)


def _registry(config: PromoteConfig) -> Registry:
    local = f"sqlite:///{config.workspace.expanduser().resolve() / 'mlflow.db'}"
    uri = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or local
    return Registry(uri, config.registered)


def _done(
    registry: Registry,
    config: PromoteConfig,
    version: Version | None,
    said: str,
    checks: tuple[Check, ...] = (),
) -> Summary:
    made = {"registry": registry.uri, "model": registry.name}
    if version is not None:
        made |= {config.to: f"version {version.number}: {version.path}"}
    else:
        said += f" Nobody is {config.to} now."
    return Summary(
        made=made,
        findings=(said, *(_line(check).strip() for check in checks)),
        next_commands=(
            f"python -m flows.promote --to {config.to} --undo",
            "python -m flows.nightly",
        ),
    )


def _line(check: Check) -> str:
    return f"  {'passed' if check.passed else 'NOT   '}  {check.title}. {check.why}"
