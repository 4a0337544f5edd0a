"""The proof of concept: principles and prompts to pairs, a trained model, and an honest report.

    python -m flows.poc --preset quick               # minutes, the embedded model will do
    python -m flows.poc                              # 500 pairs, Qwen2-0.5B when the hub is there
    python -m flows.poc --model embedded --prompts ailuminate-demo --max-pairs 600 --dry-run

Killed or interrupted at any time, the same command goes on where it was.
"""

import sys

from prefect import flow

from flows.cli import run_command
from flows.config import PoCConfig
from flows.inputs import read_sources
from flows.plan import plan_poc
from flows.reporting import poc_report, poc_summary
from flows.results import Summary
from flows.session import open_site
from flows.stages import evaluate_pair, make_preferences, refuse_leaking, sft_then_dpo
from tasks.cancellation import ends_as_cancelled
from tasks.flow_alerts import TELLS
from tasks.models import find_model
from tasks.report import publish_report


@flow(name="poc", persist_result=False, **TELLS)
@ends_as_cancelled
def poc(config: PoCConfig) -> Summary:
    """Make preference pairs, train by DPO, evaluate against the baseline, write the report."""
    sources = read_sources(config)
    tags = {"constitution": sources.constitution.fingerprint}
    with open_site(config, "poc", tags) as site:
        model = find_model(site, config.model, config.fallback)
        pairs = make_preferences(site, config, sources, model)
        refuse_leaking(pairs.path, sources)
        trained = sft_then_dpo(site, config.sft, config.training, model, pairs.path)
        training = trained.dpo
        evaluation = evaluate_pair(site, config, sources, model, training.model, pairs.path)
        data = poc_report(site, config, sources, model, pairs, trained, evaluation)
        report = publish_report(site, data)
        return poc_summary(site, data, report, pairs, training)


if __name__ == "__main__":
    sys.exit(run_command(PoCConfig, poc, plan_poc, prog="python -m flows.poc", about=__doc__))
