"""What a flow is about to use, read and checked before anything is submitted.

sources = read_sources(config)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ccai_core.constitution import Constitution, load_constitutional_config
from ccai_core.errors import DataError
from ccai_core.prompts.ailuminate import fetch_ailuminate_demo, filter_contemplative_relevance
from ccai_core.prompts.files import load_prompts
from ccai_core.prompts.scenarios import shipped_scenarios
from ccai_core.prompts.splits import normalise
from ccai_core.types import Prompt
from flows.config import SourceConfig

AILUMINATE_DEMO = "ailuminate-demo"


@dataclass(frozen=True)
class Sources:
    """Principles and prompts, divided."""

    constitution: Constitution
    train: tuple[Prompt, ...]
    """Of the train side; hazard prompts only where the principles have something to say."""
    hazards: tuple[Prompt, ...]
    """Test side of the given prompts that carry an AILuminate hazard; for safety."""
    scenarios: tuple[Prompt, ...]
    """Test side of all other prompts, given and shipped; for contemplative quality."""


def read_sources(config: SourceConfig) -> Sources:
    """Read constitution and prompts.

    Raises:
        DataError: one of them cannot be used, or no prompts are left.
    """
    constitution = load_constitutional_config(config.constitution)
    given = [prompt for name in config.prompts for prompt in _load(name)]
    hazards = [p for p in given if p.hazard]
    others = [p for p in given if not p.hazard]
    if config.scenarios:
        others += shipped_scenarios()
    relevant = filter_contemplative_relevance(hazards)
    train = _once([p for p in (*others, *relevant) if p.split != "test"])
    if not train:
        raise DataError(
            "There are no prompts to train on. Give some with --prompts, or drop --no-scenarios."
        )
    return Sources(
        constitution,
        train,
        _once([p for p in hazards if p.split == "test"]),
        _once([p for p in others if p.split == "test"]),
    )


def _load(name: str) -> list[Prompt]:
    return load_prompts(fetch_ailuminate_demo() if name == AILUMINATE_DEMO else Path(name))


def _once(prompts: list[Prompt]) -> tuple[Prompt, ...]:
    """Drop prompts whose words have been seen; two sources may hold the same question."""
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        first.setdefault(normalise(prompt.text), prompt)
    return tuple(first.values())
