"""Make a release again by its own recipe, and compare every number within the release's intervals.

    python -m flows.reproduce release --dry-run
    python -m flows.reproduce release
    python -m flows.reproduce release --model models/base --prompts practice.csv
    python -m flows.reproduce release --generate --cluster my-cluster

Checksums are verified first. Then the base model is trained on the release's pairs, or on pairs
that are generated again, and evaluated as the release was. Exit code 0: every number came out
within its interval; 1: one did not, or could not be measured; the table says which. Killed or
interrupted at any time, the same command goes on where it was.
"""

import sys

from prefect import flow

from flows.cli import run_command
from flows.reproduce_config import ReproduceConfig
from flows.reproduce_plan import plan_reproduction, read_plan
from flows.reproduce_steps import follow_recipe, reproduction_summary
from flows.results import Summary
from flows.session import open_site
from tasks.cancellation import ends_as_cancelled
from tasks.flow_alerts import TELLS


@flow(name="reproduce", persist_result=False, **TELLS)
@ends_as_cancelled
def reproduce(config: ReproduceConfig) -> Summary:
    """Follow a release's recipe and compare the numbers with its own."""
    plan = read_plan(config)
    with open_site(config, "reproduce", {"release": str(config.release)}) as site:
        return reproduction_summary(site, config, plan, follow_recipe(site, plan))


if __name__ == "__main__":
    sys.exit(
        run_command(
            ReproduceConfig,
            reproduce,
            plan_reproduction,
            prog="python -m flows.reproduce",
            about=__doc__,
        )
    )
