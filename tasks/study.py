"""The trials of a sweep, kept so that a killed driver goes on with the very same ones.

A study is an append-only file in the workspace (or a database): what was suggested is written down
before a trial begins. A trial that was running when its driver was killed is taken up again with
its own values; finished ones are never run again.

    study = Study(storage, "sweep-1f3a", space, objective="loss", pruner="median", seed=0)
    for trial in study.unfinished(): ...
    trial = study.ask()
    study.tell(trial, 0.41)
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from ccai_core.errors import ConfigError
from ccai_core.search_space import SearchSpace

Objective = Literal["loss", "margin", "accuracy"]
Pruner = Literal["median", "asha", "none"]

# Before these many trials there is nothing to compare with.
_STARTUP = 4

# It would print to where the progress bars are; all of it is said by the flow.
optuna.logging.set_verbosity(optuna.logging.ERROR)
logging.getLogger("optuna").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class Study:
    """Optuna's study over a search space, resumable by name."""

    def __init__(
        self,
        storage: Path | str,
        name: str,
        space: SearchSpace,
        *,
        objective: Objective,
        pruner: Pruner,
        seed: int,
    ) -> None:
        """Open the study, or begin it.

        Args:
            storage: A file in the workspace, or the URL of a database.
            name: What makes it the same study.
            space: What is searched.
            objective: Which number of the held-out pairs is made small (loss) or great.
            pruner: Which trials end early: those worse than the median of the others at the same
                point (from the second on), all but the better half at each halving (asha), or none.
            seed: Of the suggestions.

        Raises:
            ConfigError: the storage cannot be used.
        """
        self.space = space
        opened = storage if isinstance(storage, str) else _file(storage)
        try:
            known = _known(opened, name)
            self.inner = optuna.create_study(
                storage=opened,
                study_name=name,
                load_if_exists=True,
                direction="minimize" if objective == "loss" else "maximize",
                # A study that goes on must not suggest its first values a second time.
                sampler=optuna.samplers.TPESampler(
                    seed=seed + known, n_startup_trials=_STARTUP, constant_liar=True
                ),
                pruner=_pruner(pruner),
            )
        except Exception as error:
            raise ConfigError(
                f"The study's storage {storage} cannot be used ({str(error).splitlines()[0]:.200})."
            ) from error

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials so far, in the order in which they were begun."""
        return self.inner.get_trials(deepcopy=False)

    @property
    def best(self) -> FrozenTrial | None:
        """The best of those that went to their end; None before there is one."""
        done = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return self.inner.best_trial if done else None

    def unfinished(self) -> list[Trial]:
        """Return the trials that a killed driver has left running."""
        left = [trial for trial in self.trials if trial.state == TrialState.RUNNING]
        return [Trial(self.inner, trial._trial_id) for trial in left]

    def ask(self) -> Trial:
        """Begin another trial; its values are written down before this returns."""
        trial = self.inner.ask()
        self.values(trial)
        return trial

    def values(self, trial: Trial) -> dict[str, Any]:
        """Return a trial's values; suggests those that it does not have yet."""
        found: dict[str, Any] = {}
        for name, dimension in self.space.dimensions.items():
            if dimension.choices:
                found[name] = trial.suggest_categorical(name, list(dimension.choices))
                continue
            low, high, log = dimension.low or 0.0, dimension.high or 0.0, dimension.log
            if self.space.is_whole(name):
                step = int(dimension.step or 1)
                found[name] = trial.suggest_int(name, int(low), int(high), step=step, log=log)
            else:
                found[name] = trial.suggest_float(name, low, high, step=dimension.step, log=log)
        return found

    def tell(self, trial: Trial, value: float | None, pruned: bool = False, why: str = "") -> None:
        """Write down what a trial came to; `value` None: it failed, `why` says how."""
        if why:
            trial.set_user_attr("why", why)
        if pruned:
            state = TrialState.PRUNED
        else:
            state = TrialState.FAIL if value is None else TrialState.COMPLETE
        self.inner.tell(trial, None if pruned else value, state=state)


def _file(path: Path) -> JournalStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    _mend(path)
    # A lock file that is opened exclusively also holds on network file systems.
    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))


def _mend(path: Path) -> None:
    """Remove what a driver that was killed while it wrote has left; the workspace is held by us."""
    Path(f"{path}.lock").unlink(missing_ok=True)
    if path.exists():
        with path.open("rb+") as file:
            # Optuna would write on behind a torn line, and could read neither of both again.
            file.truncate(file.read().rfind(b"\n") + 1)


def _known(storage: Any, name: str) -> int:
    if name not in optuna.get_all_study_names(storage):
        return 0
    return len(optuna.load_study(study_name=name, storage=storage).trials)


def _pruner(name: Pruner) -> optuna.pruners.BasePruner:
    if name == "median":
        # At the first measurement the learning rate has hardly climbed.
        return optuna.pruners.MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=2)
    if name == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    return optuna.pruners.NopPruner()
