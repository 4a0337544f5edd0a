"""The loop of a sweep: as many trials at once as may run, each written down when it is through.

run_trials(site, config, study, model)
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import NamedTuple

from optuna.trial import Trial
from prefect.futures import PrefectFuture, as_completed

from ccai_core.models import ModelRef
from ccai_core.search_space import read_space
from ccai_core.training_config import TrainingConfig, estimate_steps
from ccai_core.training_data import read_pairs
from ccai_core.types import fingerprint
from flows.sweep_config import SweepConfig
from infra import job_limits
from infra.cluster import ClusterConfig
from infra.jobs import Resources
from tasks.progress import Progress
from tasks.site import Site
from tasks.study import Study
from tasks.trials import Outcome, run_trial


class _Started(NamedTuple):
    trial: Trial
    settings: TrainingConfig


Running = dict[PrefectFuture[Outcome], _Started]


def open_study(site: Site, config: SweepConfig, identity: str) -> Study:
    """Open the study that these settings began, or begin it.

    Raises:
        ConfigError: its storage cannot be used.
    """
    name = f"sweep-{identity}"
    storage: str | Path = site.workspace.root / "studies" / f"{name}.jsonl"
    if config.storage:
        # A database may be shared, and what another workspace's driver runs is not ours.
        storage, name = config.storage, f"{name}-{fingerprint(str(site.workspace.root))[:8]}"
    return Study(
        storage,
        name,
        read_space(config.space),
        objective=config.objective,
        pruner=config.pruner,
        seed=config.sweep_seed,
    )


def run_trials(site: Site, config: SweepConfig, study: Study, model: ModelRef) -> None:
    """Run trials until there are as many as asked for, those that were left running first."""
    pairs = config.pairs.resolve()
    count = len(read_pairs(pairs))
    progress = Progress(site, "sweep", unit="trials")
    left, running, stop = study.unfinished(), Running(), threading.Event()

    def begin() -> bool:
        """Start a trial, unless there are enough or their very settings are being trained."""
        if not left and len(study.trials) < config.trials:
            left.append(study.ask())
        for trial in left:
            settings = trial_config(config, study, study.values(trial), count)
            if settings not in [each.settings for each in running.values()]:
                left.remove(trial)
                future = run_trial.submit(
                    site, trial, settings, model, pairs, config.objective, stop
                )
                running[future] = _Started(trial, settings)
                return True
        return False

    try:
        while left or running or len(study.trials) < config.trials:
            while len(running) < at_once(config, site.cluster) and begin():
                pass
            future = next(iter(as_completed(list(running))))
            outcome = future.result()
            study.tell(running.pop(future).trial, outcome.value, outcome.pruned, outcome.why)
            progress.update(
                len(study.trials) - len(running) - len(left), config.trials, _best(study)
            )
    except BaseException:
        # Their jobs end, and the trials stay as they are: the same command takes them up again.
        stop.set()
        for future in running:
            future.wait()
        raise
    progress.finish(_best(study))


def trial_config(
    config: SweepConfig, study: Study, values: dict[str, object], count: int
) -> TrainingConfig:
    """Return the training settings of one trial, measured `checks` times on its way.

    Raises:
        ConfigError: the values do not go together.
    """
    settings = study.space.config(config.training, values)
    if settings.eval_steps is None:
        every = math.ceil(estimate_steps(settings, count) / config.checks)
        settings = settings.model_copy(update={"eval_steps": max(1, every)})
    return settings


def at_once(config: SweepConfig, cluster: ClusterConfig) -> int:
    """Return how many trials may run at the same time."""
    training = config.training
    wanted = Resources(
        nodes=training.nodes,
        tasks_per_node=training.ranks,
        gpus=training.ranks * cluster.gpus_of_model("train"),
    )
    most = job_limits.at_once(cluster.limits, wanted, running=())
    return min(most, config.parallel or (1 if cluster.kind == "local" else most))


def _best(study: Study) -> str:
    best = study.best
    return f"best {best.value:.4f} (trial {best.number})" if best else ""
