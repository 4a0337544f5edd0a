"""What a command would do: inputs checked and counted, cost estimated, nothing started.

print(plan_poc(config))
"""

from __future__ import annotations

import json
import math

from ccai_core.constitution import Constitution
from ccai_core.deepspeed_settings import deepspeed_settings
from ccai_core.dpo import estimate_steps
from ccai_core.errors import ConfigError
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.evaluation.suites import suite_lines
from ccai_core.generation import refuse_unusable
from ccai_core.models import pick_device
from ccai_core.sft_config import SftConfig
from ccai_core.training_config import TrainingConfig
from ccai_core.training_data import read_pairs
from flows.config import (
    EvaluationFlowConfig,
    ModelConfig,
    PoCConfig,
    PreferenceDataConfig,
    TrainingFlowConfig,
)
from flows.cost import cost_lines, generation_time
from flows.inputs import Sources, read_sources
from flows.session import read_cluster

# Share of candidates that become pairs; the embedded model's is lower: docs/pairs.md has figures.
_YIELD = 0.25


def plan_poc(config: PoCConfig) -> str:
    """Check everything a PoC reads and say what it would do."""
    sources = read_sources(config)
    lines = [
        where(config),
        *preference_lines(config, sources),
        *supervised(config.sft, config.max_pairs),
        training_line(config.training, config.max_pairs),
        _evaluation(config.evaluation, sources),
        *cost_lines(
            read_cluster(config),
            ("generation", "training", "evaluation"),
            config.training,
            config.sft,
            evaluation=config.evaluation,
        ),
        f"report      {config.workspace / 'report.html'}",
    ]
    return "\n".join(lines)


def plan_preferences(config: PreferenceDataConfig) -> str:
    """Check constitution and prompts and say how much would be generated."""
    cost = cost_lines(read_cluster(config), ("generation",))
    return "\n".join([where(config), *preference_lines(config, read_sources(config)), *cost])


def plan_training(config: TrainingFlowConfig) -> str:
    """Check the pairs and say how long training would be."""
    count = len(read_pairs(config.pairs))
    steps = estimate_steps(config.training, count)
    return "\n".join(
        [
            where(config),
            *supervised(config.sft, count),
            f"training    {count} pairs, about {steps} updates: {config.pairs}",
            *cost_lines(read_cluster(config), ("training",), config.training, config.sft),
        ]
    )


def supervised(config: SftConfig, pairs: int) -> list[str]:
    """Say how long the supervised stage would be, if there is one."""
    if not config.epochs:
        return []
    return [
        f"supervised  about {estimate_steps(config.as_training(), pairs)} updates on the chosen "
        f"answers first: {config.method}, {config.epochs} "
        f"{'epoch' if config.epochs == 1 else 'epochs'}, learning rate {config.learning_rate:g}"
    ]


def deepspeed_of(config: TrainingFlowConfig) -> str:
    """Return DeepSpeed's configuration of a training as JSON.

    Raises:
        ConfigError: it would not use DeepSpeed.
    """
    cluster = read_cluster(config)
    device: str = cluster.device
    if device == "auto":
        # Of a node only its profile can tell, of this machine only torch.
        gpus = "cuda" if cluster.gpus_of_model("train") else "cpu"
        device = pick_device() if cluster.kind == "local" else gpus
    # What "auto" becomes on the GPUs that are made now.
    auto = "bf16" if device == "cuda" else "fp32"
    precision = config.training.precision
    settings = deepspeed_settings(
        config.training, device, auto if precision == "auto" else precision
    )
    if not settings:
        raise ConfigError("zero is 0, so DeepSpeed has no part in this. Set --zero to 1, 2 or 3.")
    return json.dumps(settings, indent=2)


def plan_evaluation(config: EvaluationFlowConfig) -> str:
    """Check the prompts and say how many would be asked."""
    sources = read_sources(config)
    cost = cost_lines(read_cluster(config), ("evaluation",), evaluation=config.evaluation)
    asked = evaluation_lines(config.evaluation, sources)
    return "\n".join([where(config), *asked, *_left_out(sources), *cost])


def evaluation_lines(config: EvaluationConfig, sources: Sources) -> list[str]:
    """Say what would be asked, a line a part of the suite."""
    parts = suite_lines(config, sources.constitution, sources.hazards, sources.scenarios)
    return [_evaluation(config, sources), *parts]


def training_line(config: TrainingConfig, pairs: int) -> str:
    """Say how long a training would be, and how it would be done."""
    return (
        f"training    about {estimate_steps(config, pairs)} updates: {config.method}, "
        f"{config.epochs} epochs, learning rate {config.learning_rate:g}, beta {config.beta:g}"
    )


def where(config: ModelConfig) -> str:
    """Say on what, in which workspace and with which model."""
    cluster = read_cluster(config)
    if cluster.kind == "local" and cluster.device in {"cuda", "mps"}:
        # Looked up only when it was named: it takes seconds, and auto finds something anywhere.
        pick_device(cluster.device)
    stand_in = " (or the embedded model)" if config.fallback else ""
    return (
        f"cluster     {cluster.name}, device {cluster.device}\n"
        f"workspace   {config.workspace}\n"
        f"model       {config.model}{stand_in}"
    )


def preference_lines(config: PreferenceDataConfig, sources: Sources) -> list[str]:
    """Say how much would be generated.

    Raises:
        DataError: some prompts may not be used.
    """
    refuse_unusable(sources.train, include_restricted=config.preferences.include_restricted)
    principles = len(sources.constitution.principles)
    episodes = math.ceil(config.max_pairs / principles / _YIELD)
    calls = episodes * (1 + 2 * principles)
    generation = config.preferences.generation
    most = episodes * (
        generation.response_tokens
        + principles * (generation.critique_tokens + generation.revision_tokens)
    )
    return [
        f"principles  {_names(sources.constitution)}",
        f"prompts     {len(sources.train)} of the train side",
        *_left_out(sources),
        f"pairs       {config.max_pairs} from about {episodes} episodes: {calls} calls, "
        f"at most {most:,} tokens (if {_YIELD:.0%} of candidates pass the filters)",
        *generation_time(read_cluster(config), most),
    ]


def _left_out(sources: Sources) -> list[str]:
    return [f"{'left out' if not n else '':<12}{why}" for n, why in enumerate(sources.left_out)]


def _names(constitution: Constitution) -> str:
    return ", ".join(principle.name for principle in constitution.principles)


def _evaluation(config: EvaluationConfig, sources: Sources) -> str:
    origin = f"{len(sources.hazards)} AILuminate" if sources.hazards else "shipped adversarial"
    safety = min(config.safety_prompts, len(sources.hazards) or config.safety_prompts)
    scenarios = min(config.scenario_prompts, len(sources.scenarios))
    return (
        f"evaluation  {safety} prompts for safety (of {origin}), {scenarios} scenarios of the test "
        f"side, judge{'s' if config.judges else ''}: {', '.join((config.judge, *config.judges))}"
    )
