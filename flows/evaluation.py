"""Evaluation alone: a trained model against the model it was made from, on the same items.

    python -m flows.evaluation --model embedded --trained runs/poc/artifacts/training-*/model
    python -m flows.evaluation --trained my/model --pairs mine.jsonl --prompts ailuminate-demo
    python -m flows.evaluation --trained my/model --suite full --judge my/judge
    python -m flows.evaluation --trained my/model --list-suites

Killed or interrupted at any time, the same command goes on where it was.
"""

import sys

from prefect import flow

from ccai_core.evaluation.suites import list_suites
from flows.cli import run_command
from flows.config import EvaluationFlowConfig
from flows.inputs import read_sources
from flows.plan import plan_evaluation
from flows.reporting import evaluation_report, evaluation_summary
from flows.results import Summary
from flows.session import open_site
from flows.stages import evaluate_pair
from tasks.cancellation import ends_as_cancelled
from tasks.flow_alerts import TELLS
from tasks.models import find_model
from tasks.report import publish_report


@flow(name="evaluation", persist_result=False, **TELLS)
@ends_as_cancelled
def evaluation(config: EvaluationFlowConfig) -> Summary:
    """Measure a trained model against its baseline, with intervals, and write the report."""
    sources = read_sources(config)
    with open_site(config, "evaluation", {"trained": config.trained}) as site:
        baseline = find_model(site, config.model, config.fallback)
        trained = find_model(site, config.trained, fallback=False)
        result = evaluate_pair(site, config, sources, baseline, trained, config.pairs)
        data = evaluation_report(site, config, sources, baseline, result)
        return evaluation_summary(site, data, publish_report(site, data, "evaluation.html"))


PRINTS = {"list_suites": ("Say what every suite measures.", lambda _: list_suites())}

if __name__ == "__main__":
    # Who looks for a suite need not have a model yet.
    if sys.argv[1:] == ["--list-suites"]:
        print(list_suites())
        sys.exit(0)
    sys.exit(
        run_command(
            EvaluationFlowConfig,
            evaluation,
            plan_evaluation,
            prog="python -m flows.evaluation",
            about=__doc__,
            prints=PRINTS,
        )
    )
