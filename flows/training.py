"""DPO training alone: a model and preference pairs to a trained model.

    python -m flows.training --pairs runs/poc/artifacts/pairs-* --model embedded
    python -m flows.training --pairs mine.jsonl --method lora --learning-rate 1e-5 --dry-run
    python -m flows.training --pairs mine.jsonl --sft.epochs 1
    python -m flows.training --pairs mine.jsonl --cluster my-cluster --ranks 4 --zero 2

Killed or interrupted at any time, the same command goes on from the last good checkpoint.
"""

import sys

from prefect import flow

from flows.cli import run_command
from flows.config import TrainingFlowConfig
from flows.plan import deepspeed_of, plan_training
from flows.reporting import training_summary
from flows.results import Summary
from flows.session import open_site
from flows.stages import sft_then_dpo
from tasks.cancellation import ends_as_cancelled
from tasks.flow_alerts import TELLS
from tasks.models import find_model


@flow(name="training", persist_result=False, **TELLS)
@ends_as_cancelled
def training(config: TrainingFlowConfig) -> Summary:
    """Train a model by Direct Preference Optimization, on request after a supervised stage."""
    with open_site(config, "training", {"pairs": str(config.pairs)}) as site:
        model = find_model(site, config.model, config.fallback)
        made = sft_then_dpo(site, config.sft, config.training, model, config.pairs.resolve())
        return training_summary(config, model, made)


PRINTS = {"show_deepspeed": ("Print DeepSpeed's configuration, and do nothing.", deepspeed_of)}

if __name__ == "__main__":
    sys.exit(
        run_command(
            TrainingFlowConfig,
            training,
            plan_training,
            prog="python -m flows.training",
            about=__doc__,
            prints=PRINTS,
        )
    )
