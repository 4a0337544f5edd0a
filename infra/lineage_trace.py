"""Where a thing came from: an artifact, report or run, followed down to what was given.

    node = trace("runs/poc/report.html", Path("runs/poc"))
    node.parents[0].name                  # 'evaluation-45ab8ba3896623a9'

Read from what is there: records of artifacts, cards of data sets, and MLflow for command and
commit. What is gone or was changed stays in the picture, with words on what is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ccai_core.errors import ArtifactError, ConfigError, did_you_mean
from ccai_core.records import RECORD_FILE, ArtifactRecord, changed_files, read_record
from infra.origin import Origin, artifacts_of, find_origin, store_of

ARTIFACT_NAME = re.compile(r"\b[a-z]+(?:-[a-z]+)*-[0-9a-f]{16}\b")
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_PAGES = {".html", ".md", ".json"}
# What of the versions says most about the numbers.
_TELLING = ("python", "torch", "transformers", "trl")


@dataclass(frozen=True, eq=False)
class Node:
    """One thing in a lineage."""

    kind: str
    """report, a kind of artifact, or what was given: model, constitution, prompts, code."""
    name: str
    facts: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    """What is gone or not as it was."""
    parents: tuple[Node, ...] = ()
    folder: Path | None = None
    origin: Origin | None = None
    content: str = ""
    """Hash of what it holds, where it is an artifact."""

    def walk(self) -> Iterator[Node]:
        """Yield it after everything that it came from, each thing once."""
        seen: set[tuple[str, str]] = set()
        yield from self._walk(seen)

    def _walk(self, seen: set[tuple[str, str]]) -> Iterator[Node]:
        if (self.kind, self.name) in seen:
            return
        seen.add((self.kind, self.name))
        for each in self.parents:
            yield from each._walk(seen)
        yield self


def trace(thing: str, workspace: Path, uri: str | None = None, verify: bool = False) -> Node:
    """Return what a thing is and what it came from.

    Args:
        thing: a path (of an artifact, something in it, or a report), the name of an artifact in
            `workspace` or its beginning, or the id of an MLflow run.
        workspace: where names are looked up.
        uri: MLflow store; none: $MLFLOW_TRACKING_URI, else the workspace's.
        verify: read all files again, to see whether they are as they were.

    Raises:
        ArtifactError: there is no such thing, or its record is damaged.
    """
    tracer = _Tracer(uri, verify)
    path = Path(thing).expanduser()
    if path.exists():
        folder = _artifact_above(path.resolve())
        if folder is not None:
            return tracer.artifact(folder)
        if path.is_file() and path.suffix in _PAGES:
            return tracer.report(path.resolve())
        raise ArtifactError(
            f"{path}: is no artifact and no report. Name a folder with {RECORD_FILE}, something in "
            "it, or a report's page."
        )
    if _RUN_ID.fullmatch(thing):
        return tracer.run(thing, workspace)
    return tracer.artifact(_named(thing, workspace))


class _Tracer:
    """Looks each artifact up once."""

    def __init__(self, uri: str | None, verify: bool) -> None:
        self._uri, self._verify = uri, verify
        self._known: dict[Path, Node] = {}

    def artifact(self, folder: Path) -> Node:
        if folder not in self._known:
            self._known[folder] = self._artifact(folder)
        return self._known[folder]

    def report(self, page: Path) -> Node:
        text = page.read_text(encoding="utf-8", errors="replace")
        names = dict.fromkeys(ARTIFACT_NAME.findall(text))
        if not names:
            raise ArtifactError(f"{page}: names no artifact, so nothing says where it came from.")
        artifacts = page.parent / "artifacts"
        parents = [self._parent(name, artifacts, None) for name in names]
        # Its pairs and its model are below the evaluation; only what nothing else names is shown.
        inner = {each.name for top in parents for part in top.parents for each in part.walk()}
        shown = tuple(each for each in parents if each.name not in inner)
        return Node("report", page.name, parents=shown, folder=page.parent)

    def run(self, run_id: str, workspace: Path) -> Node:
        uri = store_of(workspace / "artifacts" / run_id, self._uri)
        if uri is None:
            raise ArtifactError(f"{workspace} has no MLflow store. Name one with --tracking-uri.")
        names = artifacts_of(uri, run_id)
        if not names:
            raise ArtifactError(
                f"No run {run_id} in the MLflow store of {workspace} says that it made an "
                "artifact. Name another --workspace or --tracking-uri."
            )
        artifacts = workspace.resolve() / "artifacts"
        parents = tuple(self._parent(name, artifacts, None) for name in names)
        return Node("run", run_id, ("MLflow run",), parents=parents)

    def _artifact(self, folder: Path) -> Node:
        record = read_record(folder)
        if record is None:
            return Node(
                folder.name.partition("-")[0], folder.name, folder=folder,
                problems=("half made: it has no record; run its command again",),
            )  # fmt: skip
        origin, problem = self._origin(folder)
        parents = tuple(self._parent(name, folder.parent, origin) for name in record.parents)
        below = {model for each in parents for part in each.walk() for model in _made(part)}
        return Node(
            record.kind,
            folder.name,
            (f"made {record.created}", f"content {record.content or 'not recorded'}"),
            tuple(filter(None, [problem, *self._changed(folder, record)])),
            (*parents, *_given(folder, record, origin, below)),
            folder,
            origin,
            record.content,
        )

    def _parent(self, name: str, artifacts: Path, origin: Origin | None) -> Node:
        for place in (artifacts / name, *_places(name, origin)):
            if place.is_dir():
                return self.artifact(place)
        kind = name.rpartition("-")[0]
        return Node(kind, name, problems=(f"gone: it is not in {artifacts}",))

    def _origin(self, folder: Path) -> tuple[Origin | None, str]:
        try:
            uri = store_of(folder, self._uri)
            origin = find_origin(uri, folder.name) if uri else None
        except ConfigError as error:
            return None, f"its command is not known: {error}"
        return origin, "" if origin else "its command is not known: no MLflow run says it made it"

    def _changed(self, folder: Path, record: ArtifactRecord) -> Iterator[str]:
        if self._verify:
            changed = [str(file.relative_to(folder)) for file in changed_files(folder, record)]
        else:
            changed = [
                name for name, (size, _) in record.files.items() if _size(folder / name) != size
            ]
        if changed:
            yield f"not as it was written: {', '.join(changed)}"


def _given(
    folder: Path, record: ArtifactRecord, origin: Origin | None, below: set[str]
) -> Iterator[Node]:
    """Yield what was given to an artifact and not made by another one."""
    settings = origin.settings if origin else {}
    models = [str(record.inputs[key]) for key in ("model", "baseline") if key in record.inputs]
    for identity in models:
        if identity not in below:
            yield Node("model", identity, _fact("asked for as", settings.get("model")))
    if constitution := record.inputs.get("constitution"):
        named = settings.get("constitution", "")
        yield Node(
            "constitution", str(constitution), _fact("read from", named),
            _since(named, record.created),
        )  # fmt: skip
    if prompts := record.inputs.get("prompts"):
        files = _words(settings.get("prompts", ""))
        facts = (*_fact("read from", ", ".join(files)), *_sources(folder))
        problems = tuple(line for each in files for line in _since(each, record.created))
        yield Node("prompts", str(prompts), facts, problems)
    versions = [f"{name} {record.versions[name]}" for name in _TELLING if name in record.versions]
    commit = origin.commit if origin else ""
    yield Node("code", commit or "commit not known", (", ".join(versions),) if versions else ())


def _sources(folder: Path) -> Iterator[str]:
    """Yield the sources of a data set's prompts and their terms."""
    try:
        info: dict[str, Any] = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError:
        yield "dataset.json cannot be read"
        return
    for source in info.get("sources", ()):
        yield f"source {source.get('name')}, {source.get('licence')}"


def _since(named: str, created: str) -> tuple[str, ...]:
    """Say whether a file that was read is gone or has been written to since."""
    path = Path(named).expanduser()
    if len(path.parts) < 2 and not path.suffix:
        return ()  # a name of something shipped
    if not path.exists():
        return (f"gone: there is no {named} any more",)
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    if changed > datetime.fromisoformat(created):
        return (f"{named} was written to since ({changed.isoformat(timespec='seconds')})",)
    return ()


def _made(node: Node) -> Iterator[str]:
    """Yield the identity of the model that an artifact holds, if it does."""
    record = read_record(node.folder) if node.folder and node.content else None
    model = record.facts.get("model") if record else None
    if isinstance(model, dict):
        yield f"{model.get('name')}@{model.get('revision')}"


def _places(name: str, origin: Origin | None) -> Iterator[Path]:
    """Yield where settings say that an artifact was taken from: another workspace, maybe."""
    for value in origin.settings.values() if origin else ():
        for at, part in enumerate(parts := Path(value).parts):
            if part == name:
                yield Path(*parts[: at + 1])


def _artifact_above(path: Path) -> Path | None:
    for each in (path, *path.parents):
        if (each / RECORD_FILE).is_file() or each.parent.name == "artifacts":
            return each if each.is_dir() else None
    return None


def _named(name: str, workspace: Path) -> Path:
    known = {each.name: each for each in _folders(workspace)}
    fitting = [each for each in known if each.startswith(name) or _number(each).startswith(name)]
    if name in known or len(fitting) == 1:
        return known.get(name) or known[fitting[0]]
    if fitting:
        raise ArtifactError(f"{name}: may be {' or '.join(sorted(fitting))}. Give more of it.")
    raise ArtifactError(
        f"{name}: is no path, no run and no artifact of {workspace}.{did_you_mean(name, known)} "
        "Name another --workspace, or give a path."
    )


def _folders(workspace: Path) -> Iterable[Path]:
    return sorted(each.resolve() for each in (workspace / "artifacts").glob("*-*") if each.is_dir())


def _number(name: str) -> str:
    return name.rpartition("-")[2]


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


def _fact(label: str, value: str | None) -> tuple[str, ...]:
    return (f"{label} {value}",) if value else ()


def _words(text: str) -> tuple[str, ...]:
    """Return a setting that is a list, as MLflow keeps it."""
    if not text.startswith("["):
        return (text,) if text else ()
    return tuple(str(each) for each in json.loads(text))
