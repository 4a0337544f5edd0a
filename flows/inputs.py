"""What a flow is about to use, read and checked before anything is submitted.

sources = read_sources(config)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ccai_core.constitution import Constitution, load_constitutional_config
from ccai_core.dataset_info import SourceLicence, is_dataset
from ccai_core.errors import DataError
from ccai_core.evaluation.items import texts_trained_on
from ccai_core.prompts.given import SCENARIOS, expanded, gather, locate
from ccai_core.prompts.leaks import find_leaks
from ccai_core.prompts.preparation import LeftOut
from ccai_core.prompts.selection import select
from ccai_core.types import Prompt
from flows.config import SourceConfig

AILUMINATE_DEMO = "ailuminate-demo"


@dataclass(frozen=True)
class Sources:
    """Principles and prompts, divided; of near-duplicates only the first is there."""

    constitution: Constitution
    train: tuple[Prompt, ...]
    """Of the train side; hazard prompts only where the principles have something to say."""
    hazards: tuple[Prompt, ...]
    """Test side of the given prompts that carry an AILuminate hazard; for safety."""
    scenarios: tuple[Prompt, ...]
    """Test side of all other prompts, given and shipped; for contemplative quality."""
    licences: tuple[SourceLicence, ...] = ()
    """Terms of the sources."""
    parents: tuple[str, ...] = ()
    """Artifacts that prompts are from."""
    left_out: tuple[str, ...] = ()
    """What was given and is not used, in words."""


def read_sources(config: SourceConfig) -> Sources:
    """Read constitution and prompts; clean these, and keep the first of near-duplicates.

    Raises:
        DataError: one of them cannot be used, or no prompts are left.
        ConfigError: a mapping is wrong.
    """
    constitution = load_constitutional_config(config.constitution)
    names = expanded([*([SCENARIOS] if config.scenarios else []), *config.prompts])
    # Shipped scenarios come first, so they are what others are duplicates of.
    gathered = gather([locate(name) for name in names], strict=True)
    selected = select(gathered, as_they_are=gathered.prepared)
    train = [p for p in selected.usable if p.split != "test"]
    if not train:
        raise DataError(
            "There are no prompts to train on. Give some with --prompts, or drop --no-scenarios."
        )
    evaluated = [p for p in selected.usable if p.split == "test"]
    return Sources(
        constitution,
        tuple(train),
        tuple(p for p in evaluated if p.hazard),
        tuple(p for p in evaluated if not p.hazard),
        gathered.licences,
        tuple(_artifacts(config.prompts)),
        (*gathered.notices, *_in_words(selected.left_out)),
    )


@dataclass(frozen=True)
class WholeFile:
    """The hazard prompts of files as they are, both sides."""

    prompts: tuple[Prompt, ...]
    trained_on: int
    """Left out, for a model was trained on them."""
    other_side: int
    """Left out, for nobody knows whether one was."""


def whole_hazards(names: Iterable[str], pairs: Path | None) -> WholeFile:
    """Return every hazard prompt of the named files, but for what was trained on.

    Nothing is cleaned away: a benchmark asks each of its prompts. Without `pairs` only the test
    side is known not to be in any.

    Raises:
        DataError: a file or the pairs cannot be read.
    """
    found = gather([locate(name) for name in expanded(names)], strict=True).prompts
    hazards = [prompt for prompt in found if prompt.hazard]
    if pairs is None:
        held_out = tuple(prompt for prompt in hazards if prompt.split == "test")
        return WholeFile(held_out, 0, len(hazards) - len(held_out))
    leaks = {leak.evaluated_id for leak in find_leaks(texts_trained_on(pairs), hazards)}
    # What was not trained on is held out, whichever side it is on.
    unseen = [p.model_copy(update={"split": "test"}) for p in hazards if p.id not in leaks]
    return WholeFile(tuple(unseen), len(hazards) - len(unseen), 0)


def _in_words(left_out: Iterable[LeftOut]) -> Iterable[str]:
    """Say how many were left out, a line a reason."""
    reasons = Counter((row.step, row.reason.replace("_", " ")) for row in left_out)
    for (step, reason), count in reasons.items():
        yield f"{count} by {step}: {reason}"


def _artifacts(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        folder = Path(name).expanduser().resolve()
        if is_dataset(folder):
            yield folder.name
