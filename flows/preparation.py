"""What `flows.prepare_data` says: before it starts, what it would read; at the end, what came out.

print(plan_prepare(config))
summary = prepare_summary(config, prepared)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ccai_core.dataset_info import is_dataset, read_info
from ccai_core.errors import DataError
from ccai_core.prompts.given import (
    SCENARIOS,
    GivenSource,
    check_files,
    expanded,
    is_there,
    locate,
)
from ccai_core.prompts.mixing import MixConfig, Unmet
from ccai_core.prompts.preparation import Preparation
from ccai_core.prompts.prepare import PrepareRequest
from ccai_core.prompts.registry import SOURCES
from ccai_core.prompts.scenarios import shipped_scenarios
from ccai_core.records import ARTIFACTS_FOLDER
from ccai_core.types import fingerprint
from flows.command import carried_over, command_for
from flows.config import PreferenceDataConfig, PrepareDataConfig
from flows.results import Summary
from flows.session import read_cluster
from tasks.prompts import KIND, Prepared

# Where nothing is said, those of them that are in the data directory. No benchmark is among them:
# what models are compared on is not to be trained on.
DEFAULT_SOURCES = (
    SCENARIOS,
    "ailuminate-demo",
    "hh-rlhf/harmless-base",
    "hh-rlhf/helpful-base",
    "hh-rlhf/red-team-attempts",
    "oasst1",
)
_MOST_UNMET = 12


def preparation_request(config: PrepareDataConfig) -> PrepareRequest:
    """Return the request that the settings make; what is asked for by name is fetched.

    Raises:
        DataError: a source is not there and cannot be fetched, or `files` names another one.
    """
    taken = [name for name, there in _sources(config).items() if there]
    return _request(config, [locate(name, config.files.get(name)) for name in taken])


def plan_prepare(config: PrepareDataConfig) -> str:
    """Say which sources there are and which are not, and what would be made; fetches nothing.

    Raises:
        DataError: a source cannot be used as it is.
        ConfigError: a mapping or the cluster profile is wrong.
    """
    sources = _sources(config)
    ready = [name for name in sources if is_there(name, config.files.get(name))]
    fetched = [name for name, taken in sources.items() if taken and name not in ready]
    left_out = [name for name, taken in sources.items() if not taken]
    # Whatever is wrong with those that are there is said now.
    found = [locate(name, config.files.get(name)) for name in ready]
    lines = [
        f"cluster     {read_cluster(config).name}, on the driver's machine",
        f"workspace   {config.workspace}",
        *_labelled("sources", [_about(name, config) for name in ready]),
        *_labelled("to fetch", [_about(name, config) for name in fetched]),
        *_labelled("not there", [_how_to_get(name) for name in left_out]),
        *_labelled("mix", _mix_words(config.mix)),
        f"relevance   hazard prompts to train on need {config.relevance:g}",
    ]
    if fetched:
        return "\n".join([*lines, "data set    is named when the sources are there"])
    name = f"{KIND}-{fingerprint(_request(config, found).inputs)}"
    folder = config.workspace / ARTIFACTS_FOLDER / name
    there = ", is there already" if (folder / "record.json").is_file() else ""
    return "\n".join([*lines, f"data set    {folder}{there}"])


def _sources(config: PrepareDataConfig) -> dict[str, bool]:
    """Return the sources by name, and whether each is taken; of the default ones what is there."""
    asked = expanded(config.sources)
    check_files(asked or tuple({*DEFAULT_SOURCES, *config.files}), config.files)
    for name in asked:
        if name in SOURCES and not is_there(name, config.files.get(name)):
            _check_published(name)
    if asked:
        return dict.fromkeys(asked, True)
    names = dict.fromkeys((*DEFAULT_SOURCES, *config.files))
    return {name: is_there(name, config.files.get(name)) for name in names}


def _check_published(name: str) -> None:
    if not SOURCES[name].files:
        raise DataError(
            f"{name}: cannot be fetched; it is for members only. Give your copy with "
            f"--files {name} FILE."
        )


def _request(config: PrepareDataConfig, found: Sequence[GivenSource]) -> PrepareRequest:
    return PrepareRequest(
        sources=tuple(found),
        cleaning=config.cleaning,
        relevance=config.relevance,
        mix=config.mix,
        include_restricted=config.include_restricted,
    )


def _about(name: str, config: PrepareDataConfig) -> str:
    file = config.files.get(name)
    where = f", in {file}" if file else ""
    if name not in SOURCES:
        folder = Path(name).expanduser()
        of = f"prepared, {read_info(folder).total:,} prompts" if is_dataset(folder) else "your own"
        return f"{name:<33} {of}"
    source = SOURCES[name]
    count = len(shipped_scenarios()) if name == SCENARIOS else source.prompts
    marks = [word for word in ("harmful", "restricted", "evaluation_only") if getattr(source, word)]
    about = [f"{count:,} prompts" if count else "", source.licence, *marks]
    return f"{name:<34}{', '.join(filter(None, about)).replace('_', ' ')}{where}"


def _how_to_get(name: str) -> str:
    return f"{name:<34}python -m ccai_core.prompts fetch {name}"


def _mix_words(mix: MixConfig) -> list[str]:
    shares = ", ".join(
        f"{share:.0%} {name}" for name, share in mix.shares.model_dump().items() if share
    )
    if mix.target_size is None:
        size = "as many as all shares can be met with (--target-size N takes more)"
    else:
        test = mix.test_size or mix.target_size
        size = f"{mix.target_size:,} to train on, {test:,} to evaluate on"
    short = "filled from the others" if mix.top_up else "left open"
    return [shares, f"{size}; what a share lacks is {short}"]


def prepare_summary(config: PrepareDataConfig, prepared: Prepared) -> Summary:
    """Say what a prompt data set holds, what was left out and why, and what to do with it."""
    made = prepared.preparation
    after = carried_over(
        config, PreferenceDataConfig, prompts=(str(prepared.folder),), scenarios=False
    )
    return Summary(
        made={
            "prompts": str(prepared.folder),
            "card": str(prepared.folder / "README.md"),
            "left out": str(prepared.folder / "dropped.jsonl"),
        },
        findings=(
            _sentence(made),
            *_by_source(made),
            *_by_category(made),
            *_by_hazard(made),
            *_reasons(made),
            *_unmet(made.unmet),
        ),
        notices=tuple(_notices(config, made)),
        next_commands=(
            command_for("preference_data", after),
            f"python -m ccai_core.datasets show {prepared.folder}",
        ),
    )


def _sentence(made: Preparation) -> str:
    train, held, test = (made.splits.get(s, 0) for s in ("train", "validation", "test"))
    return (
        f"{made.kept:,} of {made.read:,} prompts: {train:,} to train on, {held:,} held out in "
        f"training, {test:,} to evaluate on."
    )


def _by_source(made: Preparation) -> list[str]:
    header = ("source", "read", "dropped", "not relevant", "not chosen", "kept")
    rows = [
        (s.source, s.read, s.dropped, s.not_relevant, s.not_chosen, s.kept) for s in made.sources
    ]
    return table(header, rows)


def _by_category(made: Preparation) -> list[str]:
    learned, asked = made.categories("train", "validation"), made.categories("test")
    sides = [(sum(side.values()) or 1, side) for side in (learned, asked)]
    rows = [
        (
            name,
            *(f"{side.get(name, 0):,} ({side.get(name, 0) / total:.0%})" for total, side in sides),
        )
        for name in dict.fromkeys([*learned, *asked])
    ]
    return table(("category", "train side", "test side"), rows)


def _by_hazard(made: Preparation) -> list[str]:
    if not made.hazards:
        return []
    header = ("hazard", "clean", "relevant", "train", "validation", "test")
    counts = [(h.clean, h.relevant, h.train, h.validation, h.test) for h in made.hazards]
    rows = [(h.hazard, *row) for h, row in zip(made.hazards, counts, strict=True)]
    return table(header, [*rows, ("all", *map(sum, zip(*counts, strict=True)))])


def _reasons(made: Preparation) -> list[str]:
    found = [
        *((f"skipped: {reason}", count) for reason, count in made.skipped.items()),
        *((f"dropped: {reason}", count) for reason, count in made.dropped.items()),
    ]
    return [f"{count:,} {reason.replace('_', ' ')}" for reason, count in found]


def _unmet(unmet: Sequence[Unmet]) -> list[str]:
    lines = [
        f"Not met, {u.side} side: {u.stratum} has {u.got:,} of {u.wanted:,}."
        for u in unmet[:_MOST_UNMET]
    ]
    more = len(unmet) - _MOST_UNMET
    return [*lines, f"{more} more in preparation.json."] if more > 0 else lines


def _notices(config: PrepareDataConfig, made: Preparation) -> Iterable[str]:
    limits = dict(made.limited_by)
    if name := limits.get("train"):
        yield (
            f"Its size is set by {name}, of which there are fewest for their share. "
            "--target-size N takes more of the others."
        )
    if made.withheld:
        yield (
            f"{made.withheld:,} members-only prompts are in it by id and hash, without their text; "
            "they cannot be trained on. --include-restricted writes the text."
        )
    if config.include_restricted:
        yield "It may hold members-only text: do not pass it on."
    if made.personal_data:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in made.personal_data.items())
        yield f"Prompts that seem to hold personal data: {kinds}. --cleaning.drop-pii drops them."
    if missing := [n for n, there in _sources(config).items() if not there]:
        yield f"Not there, so not in it: {', '.join(missing)} (--dry-run says how to get them)."


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return lines with columns as wide as they need, all but the first flush right."""
    cells = [list(map(str, header)), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(header))]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in cells
    ]


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _labelled(label: str, lines: Sequence[str]) -> list[str]:
    return [f"{label if not n else '':<12}{line}" for n, line in enumerate(lines)]
