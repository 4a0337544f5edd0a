"""What in a workspace nobody needs any more, what is needed by whom, and how large each is.

    found = survey(workspace, uri, older_than_days=14)
    [item for item in found.items if not item.needed]

Needed is what a registered model, a page or a settings file of the workspace names, and everything
that was made from; and what somebody works on. When in doubt, it is needed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from ccai_core.errors import ArtifactError
from ccai_core.records import read_record
from infra import mlflow_store as store
from infra.fleet_plan import FleetFiles
from infra.job_record import all_attempts
from infra.job_record import read_record as read_job
from infra.job_start import is_alive
from infra.lineage_trace import ARTIFACT_NAME

CHECKPOINTS = "checkpoints"
REMOVED = ".removed-"
_DAY_S = 86_400.0
# Folders of a workspace that hold no pages of people's.
_NO_PAGES = {"artifacts", "jobs", "journal", "fleets", "reference", "mlartifacts"}
_PAGES = {".html", ".md", ".json", ".jsonl", ".yaml", ".yml", ".csv"}
# A half-made artifact has no record; what it says of its inputs is in small files.
_SMALL = 1_000_000


@dataclass(frozen=True)
class Item:
    """Something in a workspace that could be removed by itself."""

    path: Path
    kind: str
    """artifact, checkpoints, job, fleet, cache, leftover."""
    size: int
    """Bytes on disk."""
    needed: str
    """By whom or why; empty: by nobody."""


@dataclass(frozen=True)
class Survey:
    """What was found in a workspace."""

    items: tuple[Item, ...]
    total: int
    """Bytes of the whole workspace, also of what is never removed."""
    busy: str
    """Who works in it; empty: nobody, and things may be removed."""

    @property
    def removable(self) -> tuple[Item, ...]:
        """What nobody needs, the largest first."""
        return tuple(sorted((i for i in self.items if not i.needed), key=lambda i: -i.size))


@dataclass
class _Needs:
    """Names of artifacts, and who needs them."""

    by: dict[str, str] = field(default_factory=dict)

    def add(self, text: str, who: str) -> None:
        for name in ARTIFACT_NAME.findall(text):
            self.by.setdefault(name, who)


def survey(
    root: Path,
    uri: str | None,
    older_than_days: float,
    also: Iterable[Path] = (),
    *,
    held: bool = False,
) -> Survey:
    """Look through a workspace; nothing is changed.

    Args:
        root: the workspace.
        uri: MLflow's store with its registered models; none: there is none.
        older_than_days: what was written to since is kept.
        also: other folders whose pages and records may name artifacts of this workspace.
        held: the caller holds the workspace's lock, so no flow does.

    Raises:
        ArtifactError: there is no such workspace, or a record in it is damaged.
        ConfigError: MLflow does not answer: nobody knows then which models are registered.
    """
    root = root.expanduser().resolve()
    if not (root / "artifacts").is_dir():
        raise ArtifactError(f"{root}: is no workspace; one has a folder `artifacts`.")
    before = time.time() - older_than_days * _DAY_S
    working = {
        record.key: f"its job {record.job_id} runs"
        for folder, record in all_attempts(root / "jobs")
        if is_alive(record, folder)
    }
    needs = _needs(root, uri, also, before)
    items = [
        *_artifacts(root / "artifacts", needs, working, before),
        *_jobs(root, working, before),
        *_fleets(root / "fleets", before),
        *_caches(root, before),
        *_leftovers(root),
    ]
    return Survey(tuple(items), _size(root), _busy(root, working, held))


def _needs(root: Path, uri: str | None, also: Iterable[Path], before: float) -> _Needs:
    needs = _Needs()
    if uri:
        for version in store.open_client(uri).search_model_versions():
            words = " ".join([version.source or "", *version.tags.values()])
            needs.add(words, f"registered model {version.name} version {version.version}")
    for page in _pages(root):
        needs.add(page.read_text("utf-8", "replace"), f"{page.relative_to(root)}")
    for other in also:
        for page in (*_pages(other), *other.glob("artifacts/*/record.json")):
            needs.add(page.read_text("utf-8", "replace"), str(page))
    artifacts = root / "artifacts"
    for folder in _folders(artifacts):
        if read_record(folder) is None and _newest(folder) >= before:
            for file in folder.glob("*.json"):
                if file.stat().st_size <= _SMALL:
                    needs.add(file.read_text("utf-8", "replace"), f"{folder.name}, half made")
        elif _newest(folder) >= before:
            needs.by.setdefault(folder.name, "written to lately")
    _follow(artifacts, needs)
    return needs


def _follow(artifacts: Path, needs: _Needs) -> None:
    """Add everything that what is needed was made from."""
    todo = list(needs.by)
    while todo:
        name = todo.pop()
        record = read_record(artifacts / name)
        for parent in record.parents if record else ():
            if parent not in needs.by:
                needs.by[parent] = f"{name} was made from it"
                todo.append(parent)


def _artifacts(
    artifacts: Path, needs: _Needs, working: dict[str, str], before: float
) -> Iterator[Item]:
    for folder in _folders(artifacts):
        needed = working.get(folder.name) or needs.by.get(folder.name, "")
        if not needed and _newest(folder) >= before:
            needed = "written to lately"
        checkpoints = folder / CHECKPOINTS
        # The trained model is whole: nothing goes on from a checkpoint of it.
        spare = bool(needed) and checkpoints.is_dir() and read_record(folder) is not None
        size = _size(folder)
        if spare and folder.name not in working:
            inner = _size(checkpoints)
            lately = "written to lately" if _newest(checkpoints) >= before else ""
            yield Item(checkpoints, "checkpoints", inner, lately)
            size -= inner
        yield Item(folder, "artifact", size, needed)


def _jobs(root: Path, working: dict[str, str], before: float) -> Iterator[Item]:
    for folder in _folders(root / "jobs"):
        record = read_job(folder)
        needed = working.get(folder.name, "")
        if record is not None and record.resources.all_gpus:
            needed = needed or "its GPU hours count"
        artifact = root / "artifacts" / folder.name
        if artifact.is_dir() and read_record(artifact) is None:
            needed = needed or "its artifact is half made"
        if _newest(folder) >= before:
            needed = needed or "written to lately"
        yield Item(folder, "job", _size(folder), needed)


def _fleets(fleets: Path, before: float) -> Iterator[Item]:
    for folder in _folders(fleets):
        state = FleetFiles(folder).state()
        needed = "" if state is not None and state.ended else "it was not ended"
        if _newest(folder) >= before:
            needed = needed or "written to lately"
        yield Item(folder, "fleet", _size(folder), needed)


def _caches(root: Path, before: float) -> Iterator[Item]:
    """Yield log-probabilities of reference models: computed again where they are missing."""
    half = [f.name for f in _folders(root / "artifacts") if read_record(f) is None]
    for folder in _folders(root / "reference"):
        needed = f"{half[0]} is half made" if half else ""
        if _newest(folder) >= before:
            needed = needed or "written to lately"
        yield Item(folder, "cache", _size(folder), needed)


def _leftovers(root: Path) -> Iterator[Item]:
    """Yield what an earlier removal that was killed has left."""
    for folder in sorted((*root.glob(f"*/{REMOVED}*"), *root.glob(f"artifacts/*/{REMOVED}*"))):
        yield Item(folder, "leftover", _size(folder), "")


def _busy(root: Path, working: dict[str, str], held: bool) -> str:
    if working:
        return f"{next(iter(working))}: {next(iter(working.values()))}"
    if held or not (root / ".lock").exists():
        return ""
    lock = FileLock(root / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return "a flow holds the workspace"
    lock.release()
    return ""


def _pages(root: Path) -> Iterator[Path]:
    for each in sorted(root.iterdir()):
        if each.name in _NO_PAGES or each.name.startswith("."):
            continue
        for file in [each] if each.is_file() else sorted(each.rglob("*")):
            if file.suffix in _PAGES and file.is_file():
                yield file


def _folders(above: Path) -> list[Path]:
    # A link belongs to whoever made it, and so does what it leads to.
    found = above.iterdir() if above.is_dir() else ()
    return sorted(f for f in found if f.is_dir() and not f.is_symlink() and f.name[0] != ".")


def _stats(folder: Path) -> Iterator[os.stat_result]:
    for each in (folder, *folder.rglob("*")):
        # Somebody who works there may remove it while we look.
        with contextlib.suppress(FileNotFoundError):
            yield each.lstat()


def _newest(folder: Path) -> float:
    return max((found.st_mtime for found in _stats(folder)), default=time.time())


def _size(folder: Path) -> int:
    """Return the bytes on disk; a file with two names takes its place once."""
    blocks = {(found.st_dev, found.st_ino): found.st_blocks for found in _stats(folder)}
    return 512 * sum(blocks.values())
