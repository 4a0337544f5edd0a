"""What a sweep leaves: the best settings as a file, a table of all trials, and pictures.

artifacts/sweep-…/best.yaml       for `python -m flows.training --config`
artifacts/sweep-…/trials.csv      every trial: state, value, settings, why it failed
artifacts/sweep-…/history.svg     values in the order of the trials
artifacts/sweep-…/importances.svg which settings mattered, from four finished trials on
artifacts/sweep-…/slices.svg      value over each setting
"""

from __future__ import annotations

import csv
import io
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import yaml
from optuna.trial import FrozenTrial, TrialState

from ccai_core.errors import ModelError
from ccai_core.files import write_whole
from ccai_core.models import ModelRef
from ccai_core.sft_config import SftConfig
from ccai_core.training_config import TrainingConfig
from ccai_core.training_data import read_pairs
from ccai_core.types import fingerprint
from flows.command import carried_over, command_for
from flows.config import TrainingFlowConfig
from flows.results import Summary
from flows.sweep_config import SweepConfig
from flows.sweep_trials import trial_config
from infra.artifacts import Artifact
from tasks.site import Site
from tasks.study import Study

# Fewer do not tell which setting matters.
_ENOUGH = 4
_SHOWN = 10


def write_results(
    site: Site,
    config: SweepConfig,
    study: Study,
    inputs: dict[str, Any],
    parents: tuple[str, ...],
) -> Artifact:
    """Write everything into an artifact, and report it to MLflow.

    Raises:
        ModelError: no trial went to its end.
    """
    best = _best(study)
    key = {**inputs, "trials": [str(trial.state) + str(trial.params) for trial in study.trials]}
    artifact = Artifact(site.workspace.artifacts, "sweep", fingerprint(key))
    if not artifact.is_complete():
        write_whole(artifact / "best.yaml", best_yaml(config, study))
        write_whole(artifact / "trials.csv", trials_csv(study))
        _draw(study, config.objective, artifact.folder)
        artifact.finish(inputs, parents, facts={"best": best.value, **best.params})
    site.run.metrics({f"best_{config.objective}": float(best.value or 0.0)})
    for file in sorted(artifact.folder.glob("*.*")):
        site.run.artifact(file)
    return artifact


def _best(study: Study) -> FrozenTrial:
    if study.best is None:
        reasons = sorted({str(t.user_attrs.get("why", "")) for t in study.trials} - {""})
        raise ModelError(
            f"None of {len(study.trials)} trials went to its end: {'; '.join(reasons)}. Search "
            "smaller learning rates, look at the pairs, or go on with a greater --trials."
        )
    return study.best


def best_yaml(config: SweepConfig, study: Study) -> str:
    """Return the best trial's settings as a file for `flows.training --config`."""
    best = _best(study)
    count = len(read_pairs(config.pairs.resolve()))
    settings = trial_config(config, study, best.params, count)
    # All of them, defaults too: beside a preset they would be what the preset says.
    said: dict[str, Any] = {
        "training": settings.model_dump(mode="json"),
        "sft": config.sft.model_dump(mode="json") if config.sft.epochs else {"epochs": 0},
    }
    return (
        f"# The best of {len(study.trials)} trials: {config.objective} {best.value:.4f} on "
        f"held-out pairs (trial {best.number}).\n"
        "# python -m flows.training --config THIS --pairs ...\n"
        + yaml.safe_dump(said, sort_keys=False)
    )


def trials_csv(study: Study) -> str:
    """Return all trials as a table."""
    names = list(study.space.dimensions)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["trial", "state", "value", *names, "measured", "why"])
    for trial in study.trials:
        writer.writerow(
            [
                trial.number, trial.state.name.lower(),
                # Of one that was ended early Optuna takes its last measurement for its value.
                f"{trial.value:.6g}" if trial.state == TrialState.COMPLETE else "",
                *(trial.params.get(name, "") for name in names),
                len(trial.intermediate_values), trial.user_attrs.get("why", ""),
            ]
        )  # fmt: skip
    return table.getvalue()


def _draw(study: Study, objective: str, folder: Path) -> None:
    # Slow to import, and only needed at the end. They draw with pyplot, which asks for a screen.
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as drawing

    plt.switch_backend("agg")
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    pictures: dict[str, Callable[..., Any]] = {"history": drawing.plot_optimization_history}
    if len(done) >= _ENOUGH and len({trial.value for trial in done}) > 1:
        pictures |= {"importances": drawing.plot_param_importances, "slices": drawing.plot_slice}
    words = {"svg.hashsalt": "ccai", "svg.fonttype": "none"}
    with mpl.rc_context(words), warnings.catch_warnings():
        # Of a setting that all trials had alike: its axis has no length.
        warnings.simplefilter("ignore", UserWarning)
        for name, plot in pictures.items():
            axes = plot(study.inner, target_name=f"held-out {objective}")
            figure = np.ravel(axes)[0].figure
            figure.savefig(folder / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)


def sweep_summary(
    config: SweepConfig, model: ModelRef, study: Study, artifact: Artifact
) -> Summary:
    """Say which settings were best, and how to train with them."""
    best = _best(study)
    states = [trial.state for trial in study.trials]
    count = {state: states.count(state) for state in TrialState}
    settings = ", ".join(f"{name} {_value(value)}" for name, value in best.params.items())
    # What the file says need not be said again.
    training = carried_over(config, TrainingFlowConfig, training=TrainingConfig(), sft=SftConfig())
    file = shlex.quote(str(artifact / "best.yaml"))
    return Summary(
        made={
            "best settings": str(artifact / "best.yaml"),
            "all trials": str(artifact / "trials.csv"),
            "pictures": str(artifact.folder),
        },
        findings=(
            f"{len(states)} trials: {count[TrialState.COMPLETE]} went to their end, "
            f"{count[TrialState.PRUNED]} ended early, {count[TrialState.FAIL]} failed.",
            f"Best held-out {config.objective}: {best.value:.4f} (trial {best.number}) with "
            f"{settings}.",
            *table(study, config.objective),
            "It is the best of several on the same held-out pairs, so it looks better than it is: "
            "evaluate the model.",
        ),
        notices=tuple(filter(None, [model.notice])),
        next_commands=(f"{command_for('training', training)} --config {file}",),
    )


def table(study: Study, objective: str) -> list[str]:
    """Return the best trials as aligned lines for a terminal, with a head."""
    names = list(study.space.dimensions)
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    done.sort(key=lambda trial: trial.value or 0.0, reverse=objective != "loss")
    # Those that were ended early were good for nothing; trials.csv has them.
    rows = [["trial", objective, *names]] + [
        [str(trial.number), f"{trial.value:.4f}", *(_value(trial.params[name]) for name in names)]
        for trial in done[:_SHOWN]
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.rjust, row, widths)) for row in rows]


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
