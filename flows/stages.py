"""The stages that flows are composed of, each from settings to its result.

sources = read_sources(config)
model = find_model(site, config.model, config.fallback)
pairs = make_preferences(site, config, sources, model)
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ccai_core.evaluation.results import EvaluationResult
from ccai_core.evaluation.run import EvaluationRequest
from ccai_core.generation import PairRequest
from ccai_core.models import ModelRef
from ccai_core.prompts.leaks import refuse_leaks, trained_on
from ccai_core.sft_config import SftConfig, SftResult
from ccai_core.training_config import TrainingConfig, TrainingResult
from ccai_core.training_data import read_pairs
from flows.config import EvaluationFlowConfig, PoCConfig, PreferenceDataConfig
from flows.inputs import Sources
from tasks.evaluation import evaluate_models
from tasks.generation import Pairs, generate_preferences
from tasks.models import find_model
from tasks.sft import fine_tune_model
from tasks.site import Site
from tasks.training import train_dpo


def make_preferences(
    site: Site, config: PreferenceDataConfig, sources: Sources, model: ModelRef
) -> Pairs:
    """Make the preference data set that the settings ask for."""
    request = PairRequest(
        model=model,
        constitution=sources.constitution,
        prompts=sources.train,
        max_pairs=config.max_pairs,
        config=config.preferences,
        sources=sources.licences,
        parents=sources.parents,
    )
    return generate_preferences(site, request)


def refuse_leaking(pairs: Path, sources: Sources) -> None:
    """Pass if no prompt that is to be evaluated on is in the pairs: before hours of training.

    Raises:
        DataError: some are; lists them by id.
    """
    refuse_leaks(trained_on(read_pairs(pairs)), (*sources.hazards, *sources.scenarios))


class Trained(NamedTuple):
    """What a model was trained to, and how."""

    dpo: TrainingResult
    sft: SftResult | None
    """The supervised stage before it, if there was one."""


def sft_then_dpo(
    site: Site,
    sft: SftConfig,
    training: TrainingConfig,
    model: ModelRef,
    pairs: Path,
) -> Trained:
    """Train a model by DPO, its start and reference being fine-tuned first if epochs are asked."""
    if not sft.epochs:
        return Trained(train_dpo(site, training, model, pairs), None)
    tuned = fine_tune_model(site, sft, model, pairs)
    return Trained(train_dpo(site, training, tuned.model, pairs), tuned)


def evaluate_pair(
    site: Site,
    config: PoCConfig | EvaluationFlowConfig,
    sources: Sources,
    baseline: ModelRef,
    trained: ModelRef,
    pairs: Path | None,
) -> EvaluationResult:
    """Evaluate a trained model against the one it was made from."""
    judge, guard = config.evaluation.judge, config.evaluation.guard
    request = EvaluationRequest(
        baseline=baseline,
        trained=trained,
        judge=None if judge == "baseline" else find_model(site, judge, config.fallback),
        judges=tuple(find_model(site, name, config.fallback) for name in config.evaluation.judges),
        guard=find_model(site, guard, fallback=False) if guard else None,
        config=config.evaluation,
        constitution=sources.constitution,
        pairs=pairs,
        ailuminate=sources.hazards,
        scenarios=sources.scenarios,
    )
    return evaluate_models(site, request)
