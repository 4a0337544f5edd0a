"""A prompt data set from many sources: read, cleaned, sorted into categories, mixed, written.

`prepare` is a plain function of picklable arguments that reads and writes files, so it runs as a
job. The same files and settings give the same bytes.

    request = PrepareRequest(sources=locate_all(["scenarios", "ailuminate-demo"]))
    prepare(request, out=Path("artifacts/prompts-…"))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field

from ccai_core.config import Config
from ccai_core.dataset_files import write_prompt_dataset
from ccai_core.errors import DataError
from ccai_core.progress import ProgressFile
from ccai_core.prompts.cleaning import CleaningConfig
from ccai_core.prompts.given import Gathered, GivenSource, check_unchanged, gather
from ccai_core.prompts.mixing import SIDES, MixConfig, Mixed, mix
from ccai_core.prompts.preparation import (
    SPLITS,
    LeftOut,
    Preparation,
    SourceCount,
    count_hazards,
    count_strata,
)
from ccai_core.prompts.relevance import THRESHOLD
from ccai_core.prompts.selection import Selected, select

# Counted up whenever the same request would make another data set than before.
_RECIPE = 1


class PrepareRequest(Config):
    """What a prompt data set is made of; equal contents and settings make equal data sets."""

    sources: tuple[GivenSource, ...] = Field(min_length=1, description="In order of precedence.")
    cleaning: CleaningConfig = Field(default=CleaningConfig(), description="What is dropped.")
    relevance: float = Field(THRESHOLD, description="Least relevance of hazards to train on.")
    mix: MixConfig = Field(default=MixConfig(), description="How many of what kind.")
    include_restricted: bool = Field(False, description="Write members-only text.")

    @property
    def inputs(self) -> dict[str, object]:
        """What determines the data set, in short: content, not paths."""
        return {
            "recipe": _RECIPE,
            "sources": [[source.label, source.content] for source in self.sources],
            "cleaning": self.cleaning.model_dump(mode="json"),
            "relevance": self.relevance,
            "mix": self.mix.model_dump(mode="json"),
            "include_restricted": self.include_restricted,
        }


def prepare(request: PrepareRequest, out: Path) -> Preparation:
    """Write the data set into `out`, and progress meanwhile; return what became of every prompt.

    Raises:
        DataError: a source cannot be read or has changed, or not one prompt is left.
        ArtifactError: the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    progress = ProgressFile(out / "progress.json")
    check_unchanged(request.sources)
    gathered = gather(
        request.sources, lambda label, done: progress.write(f"reading {label}", done, done + 1)
    )
    _check_shares(gathered, request.mix)
    total = len(gathered.prompts)
    selected = select(
        gathered,
        request.cleaning,
        request.relevance,
        told=lambda done: progress.write("cleaning", done, total),
    )
    progress.write("mixing", total, total)
    mixed = mix(selected.usable, request.mix)
    if not mixed.prompts:
        raise DataError(_nothing_left(total, selected))
    left_out = [*selected.left_out, *_no_place(selected, mixed)]
    report = _count(request, gathered, selected, mixed, left_out)
    progress.write("writing", total, total)
    write_prompt_dataset(
        out,
        mixed.prompts,
        sources=gathered.licences,
        report=report.model_dump(mode="json"),
        include_restricted=request.include_restricted,
        dropped=left_out,
        made=request.inputs,
    )
    print(f"{report.kept} prompts in {out}", flush=True)
    return report


def _check_shares(gathered: Gathered, config: MixConfig) -> None:
    there = sorted({prompt.source for prompt in gathered.prompts})
    if unknown := sorted(config.source_shares.keys() - there):
        raise DataError(
            f"--source-shares {unknown[0]}: no prompt is from there; sources: {', '.join(there)}."
        )


def _nothing_left(total: int, selected: Selected) -> str:
    steps = Counter(row.step for row in selected.left_out)
    return (
        f"No prompt is left of {total} that were read: {steps['cleaning']} were dropped by "
        f"cleaning, {steps['relevance']} do not call for the principles, and for the others the "
        "mix has no place. Give more sources, lower --relevance, or change --shares."
    )


def _no_place(selected: Selected, mixed: Mixed) -> list[LeftOut]:
    chosen = {prompt.id for prompt in mixed.prompts}
    return [
        LeftOut(id=p.id, source=p.source, step="mix", reason="no place in the mix")
        for p in selected.usable
        if p.id not in chosen
    ]


def _count(
    request: PrepareRequest,
    gathered: Gathered,
    selected: Selected,
    mixed: Mixed,
    left_out: Sequence[LeftOut],
) -> Preparation:
    steps = Counter(row.step for row in left_out)
    splits = Counter(p.split for p in mixed.prompts)
    withheld = sum(p.restricted for p in mixed.prompts)
    pii = selected.cleaning.pii.counts
    return Preparation(
        skipped=_tally(row.reason for row in left_out if row.step == "reading"),
        read=len(gathered.prompts),
        changed=dict(selected.cleaning.changes),
        dropped=_tally(row.reason for row in left_out if row.step == "cleaning"),
        not_relevant=steps["relevance"],
        not_chosen=steps["mix"],
        kept=len(mixed.prompts),
        splits={split: splits[split] for split in SPLITS},
        languages=dict(selected.cleaning.languages),
        personal_data={kind: count for kind, count in pii.items() if count},
        withheld=0 if request.include_restricted else withheld,
        sources=_by_source(gathered, left_out, mixed),
        hazards=count_hazards(selected.clean, selected.relevant, mixed.prompts),
        strata=count_strata(mixed.prompts),
        wanted=tuple((side, mixed.wanted[side]) for side in SIDES),
        limited_by=tuple(mixed.limited_by.items()),
        unmet=mixed.unmet,
    )


def _by_source(
    gathered: Gathered, left_out: Sequence[LeftOut], mixed: Mixed
) -> tuple[SourceCount, ...]:
    read = Counter(p.source for p in gathered.prompts)
    out = Counter((row.source, row.step) for row in left_out)
    kept = Counter(p.source for p in mixed.prompts)
    return tuple(
        SourceCount(
            source=source,
            read=read[source],
            dropped=out[source, "cleaning"],
            not_relevant=out[source, "relevance"],
            not_chosen=out[source, "mix"],
            kept=kept[source],
        )
        for source in read
    )


def _tally(reasons: Iterable[str]) -> dict[str, int]:
    """Count reasons, the most frequent first."""
    counts = Counter(reasons)
    return {name: counts[name] for name in sorted(counts, key=lambda name: (-counts[name], name))}
