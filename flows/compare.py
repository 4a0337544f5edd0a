"""Evaluations of several models side by side: a page, its data, pictures, trends over size.

    python -m flows.compare runs/a/artifacts/evaluation-* runs/b/artifacts/evaluation-*
    python -m flows.compare small.json large.json --parameters my-model@3f2a 135000000
    python -m flows.compare runs/a/artifacts/evaluation-* b.json --unjudged --dry-run

They must be of the same suite, prompts and judge; if they are not, it is said what differs. Models
are paired by prompt, so that what prompts differ in drops out.
"""

import sys

from prefect import flow

from flows.cli import run_command
from flows.command import command_for
from flows.compare_config import CompareConfig
from flows.compare_steps import compare_summary, plan_compare, read_given
from flows.results import Summary
from flows.session import open_site
from tasks.cancellation import ends_as_cancelled
from tasks.comparison import compare_results


@flow(name="compare", persist_result=False)
@ends_as_cancelled
def compare(config: CompareConfig) -> Summary:
    """Compare evaluations, and write what was found."""
    given = read_given(config)
    with open_site(config, "compare", {"stage": "comparison"}, need_gb=0.1) as site:
        command = command_for("compare", config)
        made = compare_results(site, given, config.compare, command, config.tracking_uri)
        return compare_summary(site, made)


if __name__ == "__main__":
    sys.exit(
        run_command(
            CompareConfig, compare, plan_compare, prog="python -m flows.compare", about=__doc__
        )
    )
