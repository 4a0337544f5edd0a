"""Nightly evaluation: is the registry's champion still what it was when it was promoted?

    python -m flows.nightly --dry-run
    python -m flows.nightly --model embedded --time-zone Europe/Berlin
    python -m flows.nightly --simulate 30
    python -m flows.nightly --simulate 30 --simulation.regression 0

Run every night by `python -m flows.serve`. A night is measured once, whoever starts it and however
often; two never run at the same time; after a pause one run stands for the nights that were missed.
"""

import sys

from prefect import flow

from flows.cli import run_command
from flows.nightly_config import NightlyConfig
from flows.nightly_run import plan_nightly, run_nightly
from flows.results import Summary
from tasks.cancellation import ends_as_cancelled
from tasks.flow_alerts import TELLS


# A night that fails tells people itself.
@flow(name="nightly", persist_result=False, on_crashed=TELLS["on_crashed"])
@ends_as_cancelled
def nightly(config: NightlyConfig) -> Summary:
    """Evaluate the champion against its baseline, and alert when it is worse than it was."""
    return run_nightly(config)


if __name__ == "__main__":
    sys.exit(
        run_command(
            NightlyConfig, nightly, plan_nightly, prog="python -m flows.nightly", about=__doc__
        )
    )
