"""The loop of a sweep: as many trials at once as may run, each written down when it is through.

run_trials(site, config, study, model, parents=())
"""

from __future__ import annotations

import math
import threading

from optuna.trial import Trial
from prefect.futures import PrefectFuture, as_completed

from ccai_core.models import ModelRef
from ccai_core.search_space import read_space
from ccai_core.training_config import TrainingConfig, estimate_steps
from ccai_core.training_data import read_pairs
from flows.sweep_config import SweepConfig
from infra.cluster import ClusterConfig
from tasks.progress import Progress
from tasks.site import Site
from tasks.study import Study
from tasks.trials import Outcome, run_trial

Running = dict[PrefectFuture[Outcome], Trial]


def open_study(site: Site, config: SweepConfig, identity: str) -> Study:
    """Open the study that these settings began, or begin it.

    Raises:
        ConfigError: its storage cannot be used.
    """
    storage = config.storage or site.workspace.root / "studies" / f"sweep-{identity}.jsonl"
    return Study(
        storage,
        f"sweep-{identity}",
        read_space(config.space),
        objective=config.objective,
        pruner=config.pruner,
        seed=config.sweep_seed,
    )


def run_trials(
    site: Site, config: SweepConfig, study: Study, model: ModelRef, parents: tuple[str, ...]
) -> None:
    """Run trials until there are as many as asked for, those that were left running first."""
    pairs = config.pairs.resolve()
    count = len(read_pairs(pairs))
    progress = Progress(site, "sweep", unit="trials")
    left, running, stop = study.unfinished(), Running(), threading.Event()

    def begin() -> None:
        trial = left.pop(0) if left else study.ask()
        settings = trial_config(config, study, study.values(trial), count)
        future = run_trial.submit(
            site, trial, settings, model, pairs, config.objective, stop, parents
        )
        running[future] = trial

    try:
        while left or running or len(study.trials) < config.trials:
            while len(running) < at_once(config, site.cluster) and (
                left or len(study.trials) < config.trials
            ):
                begin()
            future = next(iter(as_completed(list(running))))
            trial = running.pop(future)
            outcome = future.result()
            study.tell(trial, outcome.value, outcome.pruned, outcome.why)
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
    if config.parallel:
        return config.parallel
    return 1 if cluster.kind == "local" else cluster.limits.max_jobs


def _best(study: Study) -> str:
    best = study.best
    return f"best {best.value:.4f} (trial {best.number})" if best else ""
