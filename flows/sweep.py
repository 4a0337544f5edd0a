"""Hyperparameter search for DPO: trials as ordinary trainings, the hopeless ones ended early.

    python -m flows.sweep --pairs runs/poc/artifacts/pairs-* --model embedded --trials 8
    python -m flows.sweep --pairs mine.jsonl --space lora --method lora --cluster my-cluster
    python -m flows.sweep --pairs mine.jsonl --space my-space.yaml --objective accuracy --dry-run

Killed or interrupted at any time, the same command goes on: no trial is run twice. With a greater
--trials it adds to those that are there. `best.yaml` is what flows.training takes as --config.
"""

import sys

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from ccai_core.records import artifacts_of
from ccai_core.types import fingerprint
from flows.cli import run_command
from flows.results import Summary
from flows.session import open_site
from flows.sweep_config import SweepConfig
from flows.sweep_plan import plan_sweep, sweep_inputs
from flows.sweep_results import sweep_summary, write_results
from flows.sweep_trials import open_study, run_trials
from tasks.cancellation import ends_as_cancelled
from tasks.flow_alerts import TELLS
from tasks.models import find_model
from tasks.sft import fine_tune_model

_MOST_AT_ONCE = 512


@flow(
    name="sweep",
    persist_result=False,
    **TELLS,
    task_runner=ThreadPoolTaskRunner(max_workers=_MOST_AT_ONCE),  # type: ignore[arg-type]
)
@ends_as_cancelled
def sweep(config: SweepConfig) -> Summary:
    """Search the settings of DPO that do best on held-out pairs."""
    with open_site(config, "sweep", {"pairs": str(config.pairs), "space": config.space}) as site:
        model = find_model(site, config.model, config.fallback)
        start = model
        if config.sft.epochs:
            tuned = fine_tune_model(site, config.sft, model, config.pairs.resolve())
            start = tuned.model
        inputs = sweep_inputs(config, start, site.cluster.device)
        study = open_study(site, config, fingerprint(inputs))
        run_trials(site, config, study, start)
        artifact = write_results(
            site, config, study, inputs, artifacts_of(config.pairs, start.path)
        )
        return sweep_summary(config, model, study, artifact)


if __name__ == "__main__":
    sys.exit(
        run_command(SweepConfig, sweep, plan_sweep, prog="python -m flows.sweep", about=__doc__)
    )
