"""Data sets as folders: rows as Parquet by split, a card, plots, and what they were made of.

`datasets.load_dataset(folder)` and TRL read them as they are. The same rows and settings give the
same bytes, whenever and wherever they are written.

    write_pair_dataset(folder, made.pairs, made.rejected, made.funnel, sources=licences)
    write_prompt_dataset(folder, prompts, sources=licences, report=counts, dropped=dropped)
    prompts = read_prompt_dataset(folder)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccai_core.config import Config
from ccai_core.dataset_card import card
from ccai_core.dataset_info import (
    INFO_FILE,
    SPLITS,
    DatasetInfo,
    Kind,
    SourceLicence,
    count_rows,
    data_file,
    lengths,
    word_counts,
)
from ccai_core.dataset_parquet import write_rows
from ccai_core.dataset_plots import draw_plots
from ccai_core.dataset_rows import read_prompt_dataset
from ccai_core.errors import ArtifactError, DataError
from ccai_core.files import write_whole
from ccai_core.prompts.splits import split_of
from ccai_core.spool import Picked
from ccai_core.types import PreferencePair, Prompt, Split

if TYPE_CHECKING:
    from ccai_core.pair_collector import Funnel

__all__ = ["SourceLicence", "read_prompt_dataset", "write_pair_dataset", "write_prompt_dataset"]

PREPARATION_FILE = "preparation.json"
DROPPED_FILE = "dropped.jsonl"
REJECTED_FILE = "rejected.jsonl"
FUNNEL_FILE = "funnel.json"


def write_pair_dataset(
    folder: Path,
    pairs: Sequence[PreferencePair],
    rejected: Sequence[Config],
    funnel: Funnel | None,
    *,
    sources: Sequence[SourceLicence],
    title: str = "CCAI preference pairs",
    made: Mapping[str, Any] | None = None,
    parents: tuple[str, ...] = (),
    languages: Iterable[str] = (),
) -> DatasetInfo:
    """Write preference pairs, those that were rejected and the funnel as a data set.

    Args:
        folder: where; an unfinished data set in there is replaced.
        pairs: the pairs; their order comes back when they are read.
        rejected: candidates that were not kept.
        funnel: how many fell where, if that is known.
        sources: the terms of every source the prompts are from; others are left out.
        title: what people call it.
        made: what it was made of: model, constitution, settings.
        parents: names of the artifacts it was made from.
        languages: ISO 639 codes.

    Raises:
        DataError: a pair's prompt is on the test side, or a source is missing in `sources`.
        ArtifactError: the folder cannot be written.
    """
    splits = [_trained_split(pair) for pair in pairs]
    members_only = {source.name for source in sources if source.restricted}
    words = word_counts(pairs)
    info = DatasetInfo(
        title=title,
        made=_plain(made),
        parents=parents,
        languages=tuple(sorted(set(languages))),
        restricted=sum(pair.source in members_only for pair in pairs),
        steps=tuple(funnel.steps()) if funnel else (),
        **_counted("pairs", pairs, splits, words, sources),
    )
    _begin(folder)
    _write_splits(folder, PreferencePair, pairs, splits, {})
    write_json_lines(folder / REJECTED_FILE, rejected)
    if funnel:
        write_json_lines(folder / FUNNEL_FILE, [funnel])
    return _finish(folder, info, words, funnel)


def write_prompt_dataset(
    folder: Path,
    prompts: Sequence[Prompt],
    *,
    sources: Sequence[SourceLicence],
    report: Mapping[str, Any],
    include_restricted: bool = False,
    dropped: Sequence[Config] = (),
    title: str = "CCAI prompts",
    made: Mapping[str, Any] | None = None,
    parents: tuple[str, ...] = (),
) -> DatasetInfo:
    """Write prompts, those that were dropped and the report of their preparation as a data set.

    Of members-only prompts only id and hash are written, unless `include_restricted`.

    Args:
        folder: where; an unfinished data set in there is replaced.
        prompts: the prompts; their order comes back when they are read.
        sources: the terms of every source they are from; others are left out.
        report: counts of the preparation, as plain values; written as it is.
        include_restricted: write members-only text as well.
        dropped: what was left out; records without any text.
        title: what people call it.
        made: what it was made of: sources and settings.
        parents: names of the artifacts it was made from.

    Raises:
        DataError: a source is missing in `sources`.
        ArtifactError: the folder cannot be written.
    """
    hashes = [text_hash(prompt.text) for prompt in prompts]
    written = [prompt if include_restricted else without_text(prompt) for prompt in prompts]
    splits = [prompt.split for prompt in written]
    words = word_counts(written)
    info = DatasetInfo(
        title=title,
        made=_plain(made),
        parents=parents,
        languages=tuple(sorted({p.locale.partition("_")[0] for p in written if p.locale})),
        restricted=sum(p.restricted and p.text != "" for p in written),
        withheld=sum(p.text == "" for p in written),
        steps=tuple(_numbers(report)),
        **_counted("prompts", written, splits, words, sources),
    )
    _begin(folder)
    _write_splits(folder, Prompt, written, splits, {"text_sha256": hashes})
    write_json_lines(folder / DROPPED_FILE, dropped)
    write_whole(folder / PREPARATION_FILE, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return _finish(folder, info, words)


def write_json_lines(path: Path, rows: Iterable[Config]) -> None:
    """Write one JSON object a line, whole or not at all.

    Raises:
        ArtifactError: the file cannot be written.
    """
    write_whole(path, (json.dumps(row.model_dump(), ensure_ascii=False) + "\n" for row in rows))


def text_hash(text: str) -> str:
    """Return the SHA-256 of a text, which stands for it where it must not be copied."""
    return sha256(text.encode()).hexdigest()


def without_text(prompt: Prompt) -> Prompt:
    """Take the text off a members-only prompt; any other one is returned as it is."""
    if not prompt.restricted:
        return prompt
    return prompt.model_copy(update={"text": "", "context": (), "criteria": ()})


def _trained_split(pair: PreferencePair) -> Split:
    split = split_of(pair.prompt[-1].content)
    if split == "test":
        # By id: the text may be harmful, and errors end up in logs.
        raise DataError(
            f"Prompt {pair.prompt_id} ({pair.source}) is on the test side; no pair of it may be in "
            "a training set. Make pairs of prompts whose split is 'train' or 'validation'."
        )
    return split


def _counted(
    kind: Kind,
    rows: Sequence[PreferencePair] | Sequence[Prompt],
    splits: Sequence[Split],
    words: Mapping[str, Sequence[int]],
    sources: Sequence[SourceLicence],
) -> dict[str, Any]:
    """Return what is said of the rows themselves."""
    used = {row.source for row in rows}
    if unknown := sorted(used - {source.name for source in sources}):
        raise DataError(f"Nothing is said of the licence of {', '.join(unknown)}.")
    per_split = Counter(splits)
    return {
        "kind": kind,
        "rows": {split: per_split[split] for split in SPLITS if per_split[split]},
        "counts": count_rows(kind, rows, splits),
        "words": {name: lengths(of) for name, of in words.items()},
        "sources": tuple(sorted((s for s in sources if s.name in used), key=lambda s: s.name)),
    }


def _plain(made: Mapping[str, Any] | None) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(dict(made or {}), default=str))
    return plain


def _numbers(report: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, int]]:
    for name, value in report.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{above}{name}, ")
        elif isinstance(value, int) and not isinstance(value, bool):
            yield f"{above}{name}", value


def _begin(folder: Path) -> None:
    """Make an earlier data set in the folder unfinished before its rows are replaced."""
    try:
        for name in (INFO_FILE, *map(data_file, SPLITS)):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"{folder}: cannot be written ({error.strerror}). Mend its permissions, or choose "
            "another folder."
        ) from None


def _write_splits(
    folder: Path,
    kind: type[Config],
    rows: Sequence[PreferencePair] | Sequence[Prompt],
    splits: Sequence[Split],
    extra: Mapping[str, Sequence[str]],
) -> None:
    for split in SPLITS:
        places = [index for index, of_row in enumerate(splits) if of_row == split]
        # A split without rows has no file: `datasets` cannot load an empty one.
        if places:
            more = {name: [values[index] for index in places] for name, values in extra.items()}
            mine = Picked(rows, places)
            write_rows(folder / data_file(split), kind, mine, {"index": places, **more})


def _finish(
    folder: Path,
    info: DatasetInfo,
    words: Mapping[str, Sequence[int]],
    funnel: Funnel | None = None,
) -> DatasetInfo:
    plots = draw_plots(folder, info, words, funnel)
    write_whole(folder / "README.md", card(info, plots))
    write_whole(folder / INFO_FILE, info.model_dump_json(indent=2) + "\n")
    return info
