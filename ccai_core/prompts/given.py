"""Prompts from whatever people name: sources, files of their own, mappings, prepared data sets.

A given source is known by its content, so that the same prompts make the same data set wherever
their files lie.

    sources = [locate(name) for name in expanded(["scenarios", "hh-rlhf", "mine.jsonl"])]
    gathered = gather(sources)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ccai_core import embedded
from ccai_core.config import Config, load_yaml, parse_config
from ccai_core.dataset_info import INFO_FILE, SourceLicence, data_file, is_dataset, read_info
from ccai_core.dataset_rows import read_prompt_dataset, withheld_words
from ccai_core.errors import DataError, did_you_mean
from ccai_core.prompts.checksums import known_file
from ccai_core.prompts.fetch import fetch, path_of
from ccai_core.prompts.files import read_file, settled
from ccai_core.prompts.mapping import PromptMapping
from ccai_core.prompts.reading import Skipped
from ccai_core.prompts.registry import GROUPS, SOURCES, SourceInfo
from ccai_core.prompts.rows import stem_of
from ccai_core.prompts.sources import Loaded, read_source
from ccai_core.types import Prompt, fingerprint

SCENARIOS = "scenarios"
_MAPPINGS = (".yaml", ".yml")


class GivenSource(Config):
    """A source, found."""

    name: str = Field(description="As it was given: a source, a file, a mapping or a folder.")
    file: Path | None = Field(None, description="A source's file that is elsewhere.")
    label: str = Field(description="Its name without any folder.")
    content: str = Field(description="Hash of all that it is read from.")


@dataclass(frozen=True)
class Gathered:
    """Prompts of several sources, each id once, and what is known of where they are from."""

    prompts: tuple[Prompt, ...]
    skipped: tuple[tuple[str, Skipped], ...]
    """Rows that gave no prompt, each with its source's label."""
    licences: tuple[SourceLicence, ...]
    prepared: frozenset[str]
    """Ids of those from prepared data sets, which are trained on as they are."""
    notices: tuple[str, ...]


def expanded(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names with groups ('hh-rlhf') as their sources, each name once."""
    return tuple(dict.fromkeys(n for name in names for n in GROUPS.get(name, (name,))))


def check_files(names: Sequence[str], files: Mapping[str, Path]) -> None:
    """Refuse files for what is no published source, or is not asked for.

    Raises:
        DataError: names the file and what may be meant.
    """
    for name, file in files.items():
        if name not in SOURCES or name == SCENARIOS:
            own = [each for each in SOURCES if each != SCENARIOS]
            raise DataError(
                f"--files {name} {file}: {name!r} is no published source.{did_you_mean(name, own)} "
                "A file of your own goes to --sources as it is."
            )
        if name not in names:
            raise DataError(
                f"--files {name} {file}: {name} is not among --sources; name it there, too."
            )


def is_there(name: str, file: Path | None = None) -> bool:
    """Whether a source can be read without fetching anything."""
    if file is None and name in SOURCES and name != SCENARIOS:
        source = SOURCES[name]
        return bool(source.files) and all(path_of(each).is_file() for each in source.files)
    return True


def locate(name: str, file: Path | None = None) -> GivenSource:
    """Find a source and hash its content; a published one is fetched where it is not there.

    Raises:
        DataError: there is no such source or file, or it cannot be fetched.
        ConfigError: a mapping is wrong.
    """
    path = Path(name).expanduser()
    if name in SOURCES:
        if file is not None:
            return _of_files(name, name, [file.expanduser()], file.expanduser().resolve())
        if name == SCENARIOS or not SOURCES[name].files:
            loaded = read_source(name)
            return GivenSource(name=name, label=name, content=_hash_of(loaded))
        return _of_files(name, name, fetch(SOURCES[name]))
    if is_dataset(path):
        parts = [path / data_file(split) for split in read_info(path).rows]
        return _of_files(str(path.resolve()), "prepared", [path / INFO_FILE, *parts])
    if path.suffix.lower() in _MAPPINGS:
        mapping = parse_config(PromptMapping, load_yaml(path), str(path))
        label = mapping.source or path.stem
        if mapping.file is None:
            # Of a hub data set the rows themselves; where they lie is the hub client's business.
            content = _hash_of(read_source(name))
            return GivenSource(name=str(path.resolve()), label=label, content=content)
        data = path.parent / mapping.file.expanduser()
        return _of_files(str(path.resolve()), label, [path, data])
    if not path.is_file():
        # Says what it takes the name for, and what may be meant.
        read_source(name)
    return _of_files(str(path.resolve()), stem_of(path), [path])


def check_unchanged(sources: Iterable[GivenSource]) -> None:
    """Refuse sources that are no longer what they were when they were found.

    Raises:
        DataError: names the source.
    """
    for source in sources:
        if locate(source.name, source.file).content != source.content:
            raise DataError(
                f"{source.file or source.name}: has changed since this began; run it again."
            )


def gather(
    sources: Iterable[GivenSource],
    told: Callable[[str, int], None] = lambda label, prompts: None,
    *,
    strict: bool = False,
) -> Gathered:
    """Read sources one after the other.

    Args:
        sources: found by `locate`.
        told: called before each source with its label and how many prompts there are so far.
        strict: of a file of the user's own, the first row that cannot be used ends it.

    Raises:
        DataError: one of them cannot be read.
    """
    prompts: list[Prompt] = []
    skipped: list[tuple[str, Skipped]] = []
    licences: dict[str, SourceLicence] = {}
    prepared: set[str] = set()
    notices: list[str] = []
    ids: set[str] = set()
    for source in sources:
        told(source.label, len(prompts))
        found = _read(source, strict)
        own = list(_with_own_ids(found.prompts, source.label, ids))
        prompts += own
        skipped += [(source.label, row) for row in found.skipped]
        for each in found.licences:
            licences[each.name] = _stricter(licences.get(each.name, each), each)
        if found.prepared:
            prepared.update(prompt.id for prompt in own)
        notices += found.notices
    return Gathered(
        tuple(prompts),
        tuple(skipped),
        tuple(licences.values()),
        frozenset(prepared),
        tuple(notices),
    )


@dataclass(frozen=True)
class _Found:
    prompts: tuple[Prompt, ...]
    licences: tuple[SourceLicence, ...]
    skipped: tuple[Skipped, ...] = ()
    prepared: bool = False
    notices: tuple[str, ...] = ()


def _read(source: GivenSource, strict: bool) -> _Found:
    path = Path(source.name)
    if source.name not in SOURCES and is_dataset(path):
        info = read_info(path)
        withheld = withheld_words(path, info.withheld, info.total) if info.withheld else ""
        return _Found(
            read_prompt_dataset(path), info.sources, prepared=True,
            notices=tuple(filter(None, [withheld])),
        )  # fmt: skip
    loaded = _load(source, path, strict)
    restricted = {prompt.source: False for prompt in loaded.prompts}
    for prompt in loaded.prompts:
        restricted[prompt.source] |= prompt.restricted
    terms = tuple(_licence(loaded.source, name, some) for name, some in restricted.items())
    return _Found(loaded.prompts, terms, loaded.skipped)


def _load(source: GivenSource, path: Path, strict: bool) -> Loaded:
    is_own_file = source.name not in SOURCES and path.suffix.lower() not in _MAPPINGS
    if strict and is_own_file and known_file(path) is None:
        info, reading = read_file(path, strict=True)
        settled(reading, source.name)
        return Loaded(info, reading.prompts)
    return read_source(source.name, source.file)


def _licence(info: SourceInfo, name: str, restricted: bool) -> SourceLicence:
    """Return the terms of a source's prompts that call their source `name`."""
    same = ("licence", "attribution", "homepage")
    # A file of one's own may hold rows of a published source: that they are harmful is believed,
    # what licence they have is not.
    harmful = info.harmful or (name in SOURCES and SOURCES[name].harmful)
    return SourceLicence(
        name=name,
        **{field: getattr(info, field) for field in same},
        harmful=harmful,
        restricted=info.restricted or restricted,
    )


def _stricter(first: SourceLicence, other: SourceLicence) -> SourceLicence:
    """Return the first terms of a name, with the warnings of both."""
    return first.model_copy(
        update={
            "harmful": first.harmful or other.harmful,
            "restricted": first.restricted or other.restricted,
        }
    )


def _with_own_ids(prompts: Iterable[Prompt], label: str, taken: set[str]) -> Iterator[Prompt]:
    """Give prompts ids that no other prompt has; two files may both begin with '1'."""
    for prompt in prompts:
        id_, number = prompt.id, 1
        while id_ in taken:
            id_ = f"{label}/{prompt.id}" if number == 1 else f"{label}/{prompt.id}#{number}"
            number += 1
        taken.add(id_)
        yield prompt if id_ == prompt.id else prompt.model_copy(update={"id": id_})


def _of_files(
    name: str, label: str, files: Sequence[Path], file: Path | None = None
) -> GivenSource:
    try:
        hashes = [embedded.sha256(each) for each in files]
    except OSError as error:
        raise DataError(
            f"Prompt file {error.filename}: cannot be read ({error.strerror})."
        ) from None
    content = hashes[0] if len(hashes) == 1 else fingerprint(hashes, 64)
    return GivenSource(name=name, file=file, label=label, content=content)


def _hash_of(loaded: Loaded) -> str:
    return fingerprint([prompt.model_dump(mode="json") for prompt in loaded.prompts], 64)
