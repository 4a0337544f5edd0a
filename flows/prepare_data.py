"""A prompt data set: many sources, cleaned, sorted, mixed by share, divided into sides, versioned.

    python -m flows.prepare_data --dry-run                   # what there is, and what is not
    python -m flows.prepare_data --target-size 2000
    python -m flows.prepare_data --sources scenarios ailuminate-demo mine.jsonl --hazards vcr 2
    python -m flows.prepare_data --sources ailuminate-practice --files ailuminate-practice my.csv

The folder that it makes is what --prompts of the other flows takes. Killed or interrupted at any
time, the same command goes on or begins again; a half-made data set is never used.
"""

import sys

from prefect import flow

from flows.cli import run_command
from flows.config import PrepareDataConfig
from flows.preparation import plan_prepare, preparation_request, prepare_summary
from flows.results import Summary
from flows.session import open_site
from tasks.cancellation import ends_as_cancelled
from tasks.flow_alerts import TELLS
from tasks.prompts import prepare_prompts


@flow(name="prepare-data", persist_result=False, **TELLS)
@ends_as_cancelled
def prepare_data(config: PrepareDataConfig) -> Summary:
    """Read, clean and mix prompts into a data set."""
    request = preparation_request(config)
    with open_site(config, "prepare-data", {"stage": "data"}, need_gb=1.0) as site:
        return prepare_summary(config, prepare_prompts(site, request))


if __name__ == "__main__":
    sys.exit(
        run_command(
            PrepareDataConfig,
            prepare_data,
            plan_prepare,
            prog="python -m flows.prepare_data",
            about=__doc__,
        )
    )
