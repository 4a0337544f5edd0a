"""What a sweep would do: space and pairs checked, trainings and their cost counted.

print(plan_sweep(config))
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from ccai_core.models import ModelRef
from ccai_core.search_space import SearchSpace, read_space
from ccai_core.training_config import LAYOUT, estimate_steps
from ccai_core.training_data import file_hash, read_pairs
from flows.cost import cost_lines
from flows.plan import supervised, where
from flows.session import read_cluster
from flows.sweep_config import SweepConfig
from flows.sweep_trials import at_once

_HOW_LONG = {"epochs", "batch_size", "gradient_accumulation"}


def plan_sweep(config: SweepConfig) -> str:
    """Check space and pairs, and say how many trainings there would be.

    Raises:
        ConfigError, DataError: something in them is wrong.
    """
    cluster = read_cluster(config)
    space = read_space(config.space)
    space.check(config.training)
    count = len(read_pairs(config.pairs))
    return "\n".join(
        [
            where(config),
            f"sweep       {config.trials} trials over {space.source}, "
            f"{at_once(config, cluster)} at once; {config.objective} on held-out pairs decides, "
            f"pruner {config.pruner}",
            *(f"{'':<12}{name}: {each.words}" for name, each in space.dimensions.items()),
            *supervised(config.sft, count),
            f"training    {count} pairs, about {_updates(config, space, count)} updates each, "
            f"measured {config.checks} times: {config.pairs}",
            *cost_lines(cluster, ("training",), config.training, config.sft, config.trials),
        ]
    )


def _updates(config: SweepConfig, space: SearchSpace, pairs: int) -> str:
    """Return from how many to how many weight updates a trial has: "40 to 120"."""
    ends = [
        [(name, value) for value in each.choices or (each.low, each.high)]
        for name, each in space.dimensions.items()
        if name in _HOW_LONG
    ]
    counts = [
        estimate_steps(config.training.model_copy(update=_whole(values)), pairs)
        for values in itertools.product(*ends)
    ]
    least, most = min(counts), max(counts)
    return str(most) if least == most else f"{least} to {most}"


def _whole(values: Iterable[tuple[str, Any]]) -> dict[str, int]:
    return {name: int(value) for name, value in values}


def sweep_inputs(config: SweepConfig, model: ModelRef, device: str) -> dict[str, Any]:
    """Return what makes it the same study: everything but how many trials, and how many at once."""
    space = read_space(config.space)
    return {
        "model": model.identity,
        "pairs": file_hash(config.pairs.resolve()),
        "device": device,
        "training": config.training.model_dump(mode="json", exclude=set(LAYOUT)),
        "space": space.model_dump(mode="json", exclude={"source"}),
        **config.model_dump(mode="json", include={"objective", "pruner", "checks", "sweep_seed"}),
    }
