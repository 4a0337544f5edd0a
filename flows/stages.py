"""The stages that flows are composed of, each from settings to its result.

sources = read_sources(config)
model = find_model(site, config.model, config.fallback)
pairs = make_preferences(site, config, sources, model)
"""

from __future__ import annotations

from pathlib import Path

from ccai_core.evaluation.results import EvaluationResult
from ccai_core.evaluation.run import EvaluationRequest
from ccai_core.generation import PairRequest
from ccai_core.models import ModelRef
from ccai_core.prompts.leaks import refuse_leaks, trained_on
from ccai_core.training_data import read_pairs
from flows.config import EvaluationFlowConfig, PoCConfig, PreferenceDataConfig
from flows.inputs import Sources
from tasks.evaluation import evaluate_models
from tasks.generation import Pairs, generate_preferences
from tasks.models import find_model
from tasks.site import Site


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


def evaluate_pair(
    site: Site,
    config: PoCConfig | EvaluationFlowConfig,
    sources: Sources,
    baseline: ModelRef,
    trained: ModelRef,
    pairs: Path | None,
    parents: tuple[str, ...] = (),
) -> EvaluationResult:
    """Evaluate a trained model against the one it was made from, artifacts being its `parents`."""
    judge = config.evaluation.judge
    request = EvaluationRequest(
        baseline=baseline,
        trained=trained,
        judge=None if judge == "baseline" else find_model(site, judge, config.fallback),
        config=config.evaluation,
        constitution=sources.constitution,
        pairs=pairs,
        ailuminate=sources.hazards,
        scenarios=sources.scenarios,
    )
    return evaluate_models(site, request, parents)
