"""Make a preference data set in this process: load the model, run episodes, filter, write.

`generate_pairs` is a plain function of picklable arguments that reads and writes files, so it runs
as a job. Called again after a kill it replays its journal and goes on to the very same pairs.

    generate_pairs(request, out=Path("artifacts/pairs-…"), journal=Path("journal/calls.jsonl"))
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import Field

from ccai_core.config import Config
from ccai_core.constitution import Constitution
from ccai_core.dataset_files import SourceLicence, write_pair_dataset
from ccai_core.engines import LocalEngines, OpenEngine
from ccai_core.errors import DataError
from ccai_core.generation_watch import GenerationWatch
from ccai_core.models import ModelRef
from ccai_core.preferences import Funnel, PairSet, PreferenceConfig, make_pairs
from ccai_core.progress import ProgressFile
from ccai_core.prompts.registry import SOURCES, SourceInfo
from ccai_core.prompts.splits import split_of
from ccai_core.types import Prompt, fingerprint

# Counted up whenever the same request would make other pairs than before.
_RECIPE = 4
# How much is computed at once says nothing of what is asked for.
_RESOURCES = {"generation": {"batch_size"}}


class PairRequest(Config):
    """What pairs are made of; equal requests make equal pairs."""

    model: ModelRef = Field(description="Writes responses, critiques and revisions.")
    constitution: Constitution = Field(description="The principles.")
    prompts: tuple[Prompt, ...] = Field(description="Prompts of the train side.")
    max_pairs: int = Field(ge=1, description="Pairs to make, over all principles together.")
    config: PreferenceConfig = Field(description="How they are made and which are kept.")
    sources: tuple[SourceLicence, ...] = Field(
        (), description="Terms of the prompts' sources, beside those of published ones."
    )
    parents: tuple[str, ...] = Field((), description="Artifacts that the prompts are from.")

    @property
    def inputs(self) -> dict[str, object]:
        """What determines the pairs, in short: content, not paths."""
        return {
            "recipe": _RECIPE,
            "model": self.model.identity,
            "constitution": self.constitution.fingerprint,
            "prompts": fingerprint(
                [
                    (p.id, p.source, p.hazard, [(turn.role, turn.content) for turn in p.turns])
                    for p in self.prompts
                ]
            ),
            "max_pairs": self.max_pairs,
            "config": self.config.model_dump(mode="json", exclude=_RESOURCES),
        }


def generate_pairs(
    request: PairRequest, out: Path, journal: Path, engines: OpenEngine | None = None
) -> Funnel:
    """Write the pairs as a data set into `out` (see docs/datasets.md), and progress meanwhile.

    `engines` opens the model that writes; none: in this process.

    Raises:
        DataError: the journal is damaged, a prompt may not be used, or not one pair came out.
        ModelError: the model cannot be loaded.
    """
    check_prompts(request)
    out.mkdir(parents=True, exist_ok=True)
    progress = ProgressFile(out / "progress.json")
    made = asyncio.run(_generate(request, progress, journal, engines or LocalEngines()))
    used = {pair.prompt_id for pair in made.pairs}
    write_pair_dataset(
        out,
        made.pairs,
        made.rejected,
        made.funnel,
        sources=licences(request.prompts, request.sources),
        title=f"CCAI preference pairs by {request.model.name}",
        made=request.inputs,
        parents=request.parents,
        languages=(
            p.locale.partition("_")[0] for p in request.prompts if p.id in used and p.locale
        ),
    )
    print(f"{made.funnel.pairs} pairs in {out}", flush=True)
    return made.funnel


def check_prompts(request: PairRequest) -> None:
    """Refuse prompts of which no pairs may be made, before anything is generated.

    Raises:
        DataError: some are members-only and were not asked for, or are on the test side.
    """
    refuse_unusable(request.prompts, include_restricted=request.config.include_restricted)


def refuse_unusable(prompts: Iterable[Prompt], *, include_restricted: bool) -> None:
    """Pass if pairs may be made of all these prompts.

    Raises:
        DataError: some are members-only and were not asked for, or are on the test side.
    """
    prompts = tuple(prompts)
    members_only = sorted({p.source for p in prompts if p.restricted})
    if members_only and not include_restricted:
        raise DataError(
            f"Prompts of {', '.join(members_only)} are members-only, and pairs hold the text of "
            "their prompt. Leave them out, or say --include-restricted: the data set is then for "
            "your own use and must not be passed on."
        )
    if tested := [p.id for p in prompts if split_of(p.text) == "test"]:
        raise DataError(
            f"{len(tested)} prompts are on the test side by their text (first: {tested[0]}) and "
            "must not be trained on, whatever their file says. Leave them out."
        )


def licences(
    prompts: Iterable[Prompt], known: Iterable[SourceLicence] = ()
) -> tuple[SourceLicence, ...]:
    """Return the terms of the sources of prompts: as given, as published, or as not known."""
    given = {source.name: source for source in known}
    restricted: dict[str, bool] = {}
    for prompt in prompts:
        restricted[prompt.source] = restricted.get(prompt.source, False) or prompt.restricted
    terms = (given.get(name) or _published(name, SOURCES) for name in sorted(restricted))
    return tuple(
        each.model_copy(update={"restricted": True}) if restricted[each.name] else each
        for each in terms
    )


def _published(name: str, sources: Mapping[str, SourceInfo]) -> SourceLicence:
    if name not in sources:
        return SourceLicence(name=name)
    return SourceLicence.model_validate(
        {field: getattr(sources[name], field) for field in SourceLicence.model_fields}
    )


async def _generate(
    request: PairRequest, progress: ProgressFile, journal: Path, engines: OpenEngine
) -> PairSet:
    from ccai_core.journal import Journal, Recorded

    batch_size = request.config.generation.batch_size
    with Journal.open(journal) as calls:
        async with engines(request.model, batch_size=batch_size) as engine:
            recorded = Recorded(engine, calls)
            watch = GenerationWatch(progress, recorded, request.max_pairs)
            async with watch.following():
                return await make_pairs(
                    recorded,
                    request.prompts,
                    request.constitution,
                    request.config,
                    request.max_pairs,
                    on_progress=watch.report,
                    # Beside the journal: where temporary files are there may be only memory.
                    folder=journal.parent,
                )
