"""The commands that made a thing, in order, and what comes out when they are run again elsewhere.

again = plan_again(node, Path("runs/again"))
again.run()
again.differences(node)               # () when every artifact holds the very same
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ccai_core.errors import ArtifactError
from ccai_core.records import DATA_FOLDER, ArtifactRecord, read_record
from infra.lineage_trace import Node
from infra.provenance import code_version

_START = ["python", "-m"]
_FLOWS = "flows."
_WORKSPACE = "--workspace"
_DEFAULT = "runs/poc"
_HELD = ("model/", f"{DATA_FOLDER}/")


@dataclass(frozen=True)
class Again:
    """Commands to run again."""

    commands: tuple[tuple[str, ...], ...]
    commits: tuple[str, ...]
    """Of the code that made them."""
    into: Path | None

    def lines(self) -> Iterator[str]:
        """Yield what to type, with what to know before it."""
        here = code_version()
        for commit in self.commits:
            if commit != here:
                yield f"# It was made by commit {commit}; this code is {here}."
            if commit.endswith("+changes"):
                yield "# Files differed from that commit: what they said is not kept."
        yield from map(shlex.join, self.commands)

    def run(self) -> None:
        """Run the commands one after the other.

        Raises:
            ArtifactError: one ended with an error; what it said is above.
        """
        for words in self.commands:
            # No shell, and `_words` lets nothing pass but this project's flows.
            done = subprocess.run([sys.executable, *words[1:]], check=False)  # noqa: S603
            if done.returncode:
                raise ArtifactError(f"Ended with {done.returncode}: {shlex.join(words)}")

    def differences(self, node: Node) -> tuple[str, ...]:
        """Return how what was made again differs from the artifacts of `node`."""
        return tuple(self._differences(node))

    def _differences(self, node: Node) -> Iterator[str]:
        for each in node.walk():
            if not each.content or self.into is None:
                continue
            before = read_record(each.folder) if each.folder else None
            record = read_record(self.into.expanduser() / "artifacts" / each.name)
            if record is None or before is None:
                yield (
                    f"{each.name} was not made again: what it is made of is not the same any more "
                    "(model, files, settings or code)."
                )
            elif _held(record) != _held(before):
                yield f"{each.name}: same inputs, but it does not hold the same."


def plan_again(node: Node, into: Path | None = None) -> Again:
    """Return the commands that made a thing, what came first first.

    Args:
        node: the thing.
        into: a workspace that takes the place of theirs; none: their own.

    Raises:
        ArtifactError: of something nobody knows the command, or it is none of this project's.
    """
    made = [each for each in node.walk() if each.content]
    for each in made:
        if each.origin is None or not each.origin.command:
            raise ArtifactError(
                f"{each.name}: its command is not known, so it cannot be made again from here. "
                "Name the MLflow store that its run was reported to with --tracking-uri."
            )
    origins = [each.origin for each in made if each.origin]
    commands = dict.fromkeys(origin.command for origin in origins)
    return Again(
        tuple(_words(command, into) for command in commands),
        tuple(dict.fromkeys(origin.commit for origin in origins if origin.commit)),
        into,
    )


def _held(record: ArtifactRecord) -> object:
    """Return what must be the same: a model, rows, else the facts. Logs and times never are."""
    held = {name: file for name, file in record.files.items() if name.startswith(_HELD)}
    return held or record.facts


def _words(command: str, into: Path | None) -> tuple[str, ...]:
    words = shlex.split(command)
    # A store may be written to by others: nothing but flows is started from what it says.
    if words[:2] != _START or len(words) < 3 or not words[2].startswith(_FLOWS):
        raise ArtifactError(f"No command of this project: {command}")
    if into is None:
        return tuple(words)
    at = words.index(_WORKSPACE) if _WORKSPACE in words else None
    old = words[at + 1] if at is not None else _DEFAULT
    if at is not None:
        del words[at : at + 2]
    new = str(into)
    # What an earlier command made is in the new workspace as well.
    moved = [f"{new}{word[len(old) :]}" if word.startswith(f"{old}/") else word for word in words]
    return (*moved[:3], _WORKSPACE, new, *moved[3:])
