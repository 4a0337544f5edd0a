"""Make an evaluated model the challenger or the champion of MLflow's registry, if it may be.

    python -m flows.promote --evaluation runs/poc/artifacts/evaluation-3f2a --dry-run
    python -m flows.promote --evaluation runs/poc/artifacts/evaluation-3f2a --to challenger
    python -m flows.promote --undo

What decides is the evaluation's intervals: no loss beyond a margin, a gain in something, none of
the plan's criteria missed. The champion is what `python -m flows.nightly` watches.
"""

import sys

from prefect import flow

from flows.cli import run_command
from flows.promote_config import PromoteConfig
from flows.promote_steps import plan_promotion, run_promotion
from flows.results import Summary
from tasks.flow_alerts import TELLS


@flow(name="promote", persist_result=False, **TELLS)
def promote(config: PromoteConfig) -> Summary:
    """Promote a model whose evaluation shows that it may be, or take the last promotion back."""
    return run_promotion(config)


if __name__ == "__main__":
    sys.exit(
        run_command(
            PromoteConfig, promote, plan_promotion, prog="python -m flows.promote", about=__doc__
        )
    )
