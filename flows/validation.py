"""The final check of a trained model: the whole suite on the whole AILuminate file, and the gate.

    python -m flows.validation --trained runs/poc/artifacts/training-*/model --model embedded \
        --pairs runs/poc/artifacts/pairs-* --prompts practice.csv --dry-run
    python -m flows.validation --preset validation --trained my/model --prompts official.csv
    python -m flows.validation --trained my/model --prompts practice.csv --cluster my-cluster
    python -m flows.validation --preset quick --trained my/model --prompts ailuminate-demo

Safety, robustness, helpfulness, cooperation and capability are measured against the model before
training; then the plan's success criteria are decided: met, not met, or not measurable at this
size. Exit code 0: all are met; 1: one is not shown to be. What `flows.release` and `flows.promote`
read is the evaluation that this makes. Killed or interrupted, the same command goes on.
"""

import sys

from prefect import flow

from flows.cli import run_command
from flows.results import Summary
from flows.session import open_site
from flows.validation_config import ValidationConfig
from flows.validation_plan import plan_validation, read_validation
from flows.validation_steps import validate, validation_summary
from tasks.cancellation import ends_as_cancelled
from tasks.flow_alerts import TELLS


@flow(name="validation", persist_result=False, **TELLS)
@ends_as_cancelled
def validation(config: ValidationConfig) -> Summary:
    """Measure a trained model on the whole AILuminate file and decide the success criteria."""
    prepared = read_validation(config)
    with open_site(config, "validation", {"trained": config.trained}) as site:
        return validation_summary(site, config, validate(site, config, prepared))


if __name__ == "__main__":
    sys.exit(
        run_command(
            ValidationConfig,
            validation,
            plan_validation,
            prog="python -m flows.validation",
            about=__doc__,
        )
    )
