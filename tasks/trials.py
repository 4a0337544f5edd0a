"""One trial of a sweep: an ordinary training that is watched, and ended when it is hopeless.

outcome = run_trial.submit(site, trial, config, model, pairs, objective="loss").result()
"""

from __future__ import annotations

import copy
import dataclasses
import threading
from pathlib import Path
from typing import Any

from optuna.trial import Trial

from ccai_core.errors import JobMemoryError, JobTimeoutError, ModelError
from ccai_core.models import ModelRef
from ccai_core.training_config import TrainingConfig
from tasks.policy import retried_task
from tasks.site import Site
from tasks.study import Objective
from tasks.training import trained


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a trial came to."""

    value: float | None
    """The objective on held-out pairs; None: it failed, or was ended early."""
    pruned: bool = False
    why: str = ""
    model: Path | None = None
    seconds: float = 0.0


# It diverged, or wants more memory or time than a job has. Anything else may meet every trial.
_OF_ITS_SETTINGS = (ModelError, JobMemoryError, JobTimeoutError)


class _Hopeless(BaseException):
    """Ends the trial's job. Not an Exception, so that nothing tries it again."""


class _Stopped(BaseException):
    """Ends the trial's job because the sweep ends."""


@retried_task(name="trial", task_run_name="trial {trial.number}")
def run_trial(
    site: Site,
    trial: Trial,
    config: TrainingConfig,
    model: ModelRef,
    pairs: Path,
    objective: Objective,
    stop: threading.Event,
) -> Outcome:
    """Train with the trial's settings; end early what the other trials' curves say is hopeless.

    Once `stop` is set the trial's job is ended, and goes on when the trial is run again.
    """
    # A driver that takes the trial up again reads its log from the start.
    known = set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def watch(lines: list[dict[str, Any]]) -> None:
        if stop.is_set():
            raise _Stopped
        measured = [line for line in lines if _is_between(line)]
        for line in measured:
            # Trials take steps of their own; their measurements are numbered alike.
            point = round(line["step"] / (config.eval_steps or 1))
            if line.get(objective) is not None and point not in known:
                trial.report(line[objective], point)
                known.add(point)
        # One that is through already has its value, good or bad.
        is_through = any(line["event"] == "end" for line in lines)
        if measured and not is_through and trial.should_prune():
            raise _Hopeless

    number = f"trial-{trial.number}"
    with site.tracking.run(number, parent=site.run, tags={"stage": "trial"}) as run:
        run.params(dict(trial.params))
        below = copy.copy(site)
        below.run = run
        try:
            made = trained(below, config, model, pairs, step=number, watch=watch)
        except _Hopeless:
            run.tags({"pruned": "true"})
            return Outcome(None, pruned=True, why="worse than the others at this point")
        except _OF_ITS_SETTINGS as error:
            # They do not work; others may.
            run.tags({"failed": str(error)})
            return Outcome(None, why=str(error))
        after = made.validation_after
        value = float(getattr(after, objective)) if after else None
        run.metrics({objective: value} if value is not None else {})
        return Outcome(value, model=made.model_path, seconds=made.seconds)


def _is_between(line: dict[str, Any]) -> bool:
    """Whether a line measures a model that has begun to learn, and is not through."""
    return line["event"] == "eval" and 0 < int(line["step"]) < int(line["total_steps"])
