"""A data set in other forms: JSON lines, TRL's three columns, a folder to pass on, or the hub.

Members-only text leaves the workspace only when it is asked for, and never for the hub.

    export(folder, "trl", Path("trl"))               # train.jsonl, validation.jsonl
    export(folder, "jsonl", Path("pairs.jsonl"))
    push(folder, "me/my-pairs", private=True)
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from ccai_core.dataset_info import INFO_FILE, UNKNOWN, DatasetInfo, Kind, data_file, read_info
from ccai_core.dataset_plots import PLOTS_FOLDER
from ccai_core.dataset_rows import Row, read_dataset_rows, row_as
from ccai_core.errors import ArtifactError, DataError, EngineError
from ccai_core.files import write_whole
from ccai_core.prompts.splits import split_of
from ccai_core.types import PreferencePair, Prompt, Split

Format = Literal["trl", "jsonl", "parquet"]
# What TRL reads: preferences for DPO, prompts alone for methods that write the answers themselves.
_TRL: Mapping[Kind, tuple[str, ...]] = {
    "pairs": ("prompt", "chosen", "rejected"), "prompts": ("prompt",),
}  # fmt: skip


def export(
    folder: Path, to_format: Format, target: Path, *, include_restricted: bool = False
) -> dict[Path, int]:
    """Write a data set in another form; returns the rows of each file that was made.

    Args:
        folder: the data set.
        to_format: 'jsonl': all columns; 'trl': those that TRL trains on; 'parquet': the folder as
            it is, without rejected candidates and record.
        target: a folder that is new or empty, or for JSON lines also a file `….jsonl` for all rows.
        include_restricted: write members-only text as well.

    Raises:
        DataError: it cannot be read, or holds members-only text that was not asked for.
        ArtifactError: `target` is in use or cannot be written.
    """
    info = read_info(folder)
    if info.restricted and not include_restricted:
        raise DataError(
            f"{folder}: {info.restricted} rows hold members-only text ({_restricted_names(info)}). "
            "--include-restricted exports it for your own use; its terms forbid passing it on."
        )
    if to_format == "parquet":
        return _copy(folder, info, _empty(target))
    lines = _by_split(folder, info, to_format)
    if target.suffix == ".jsonl":
        if target.exists():
            raise ArtifactError(f"{target}: is there already. Choose another name or remove it.")
        return {target: _write(target, [line for _, line in lines])}
    _empty(target)
    by_split = {split: [line for at, line in lines if at == split] for split in info.rows}
    return {
        (file := target / f"{split}.jsonl"): _write(file, of_split)
        for split, of_split in by_split.items()
        if of_split
    }


def upload_plan(folder: Path) -> tuple[DatasetInfo, dict[str, int]]:
    """Return what would be uploaded: the data set, and the bytes of each file.

    Raises:
        DataError: it cannot be read, holds members-only text, or a source has no known licence.
    """
    info = read_info(folder)
    if info.restricted:
        raise DataError(
            f"{folder}: {info.restricted} rows hold members-only text ({_restricted_names(info)}); "
            "its terms forbid publishing it. Make a data set without that source."
        )
    if unknown := [source.name for source in info.sources if source.licence in ("", UNKNOWN)]:
        raise DataError(
            f"{folder}: no licence is known for {', '.join(unknown)}, so it is not yours to "
            "publish as far as this can tell. Make it again from sources whose licence is given."
        )
    return info, {name: (folder / name).stat().st_size for name in _published(folder, info)}


def check_repository(name: str) -> None:
    """Pass if the hub could have a repository of this name.

    Raises:
        DataError: says what is wrong with it.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise DataError(f"--to {name}: is no name of a repository ({error}).") from None


def push(folder: Path, repository: str, *, private: bool) -> str:
    """Upload a data set to the hub, as whoever is logged in there; returns its address.

    Raises:
        DataError: as `upload_plan`, or the repository is public and was to be private.
        EngineError: the hub is away or refuses (no token, no rights, no such name).
    """
    import httpx2 as httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    check_repository(repository)
    info, _ = upload_plan(folder)
    api = HfApi()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            _copy(folder, info, Path(scratch))
            made = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
            # One that was there before keeps its visibility, whatever was asked for.
            if private and not api.repo_info(repository, repo_type="dataset").private:
                raise DataError(
                    f"{repository}: is there already, for everybody to see. Say --public if that "
                    "is meant, or choose another name."
                )
            api.upload_folder(
                repo_id=repository, folder_path=scratch, repo_type="dataset",
                commit_message=info.title,
            )  # fmt: skip
    except (HfHubHTTPError, LocalTokenNotFoundError, httpx.HTTPError, OSError) as error:
        raise EngineError(
            f"{repository}: cannot be uploaded ({str(error).splitlines()[0]}). Log in with `hf "
            "auth login` or set HF_TOKEN to a token that may write, and try again."
        ) from None
    return str(made)


def _restricted_names(info: DatasetInfo) -> str:
    return ", ".join(source.name for source in info.sources if source.restricted) or "marked so"


def _published(folder: Path, info: DatasetInfo) -> Iterator[str]:
    """Name the files that others need: rows, card, description and plots."""
    yield from ("README.md", INFO_FILE, *map(data_file, info.rows))
    yield from sorted(
        f"{PLOTS_FOLDER}/{file.name}" for file in (folder / PLOTS_FOLDER).glob("*.svg")
    )


def _copy(folder: Path, info: DatasetInfo, target: Path) -> dict[Path, int]:
    try:
        for name in _published(folder, info):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target / name)
    except OSError as error:
        raise ArtifactError(
            f"{target}: cannot be written ({error.strerror or error}). Choose another folder."
        ) from None
    return {target / data_file(split): count for split, count in info.rows.items()}


def _empty(target: Path) -> Path:
    if target.is_dir() and not any(target.iterdir()):
        return target
    if target.exists():
        raise ArtifactError(f"{target}: is in use. Give a folder that is new or empty.")
    return target


def _by_split(folder: Path, info: DatasetInfo, to_format: Format) -> list[tuple[Split, str]]:
    """Return every row that has its text as a line of JSON, with its split."""
    lines = []
    for row in read_dataset_rows(folder, info.kind):
        if info.kind == "prompts" and not row.values["text"]:
            continue
        split, values = _pair(row) if info.kind == "pairs" else _prompt(row)
        if to_format == "trl":
            values = {name: values[name] for name in _TRL[info.kind]}
        elif info.kind == "prompts":
            del values["prompt"]
        lines.append((split, json.dumps(values, ensure_ascii=False) + "\n"))
    return lines


def _pair(row: Row) -> tuple[Split, dict[str, Any]]:
    pair = row_as(PreferencePair, row.values, row.where)
    return split_of(pair.prompt[-1].content), pair.model_dump()


def _prompt(row: Row) -> tuple[Split, dict[str, Any]]:
    prompt = row_as(Prompt, row.values, row.where)
    return prompt.split, prompt.model_dump() | {"prompt": [t.model_dump() for t in prompt.turns]}


def _write(file: Path, lines: Iterable[str]) -> int:
    kept = list(lines)
    write_whole(file, kept)
    return len(kept)
