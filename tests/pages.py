"""The documentation's pages, their code blocks, and the commands in these.

A block of shell commands is executed by the tests as it stands, unless the line above it says
otherwise, in a comment that readers do not see:

    <!-- planned: takes six minutes -->     executed with --dry-run
    <!-- long: takes six minutes -->        the same; `make test-all` executes it whole
    <!-- not run: needs a cluster -->       its options are checked, nothing is executed
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docker/*.md")])
SHELL = ("sh", "bash", "console")

FENCE = re.compile(
    r"^(?:<!-- (?P<mark>planned|long|not run): (?P<reason>[^\n]+) -->\n)?"
    r"```(?P<language>\w*)(?P<beside>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_ASSIGNMENT = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    beside: str
    text: str
    mark: Literal["planned", "long", "not run"] | None
    reason: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command, in order."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        split = (shlex.split(line, comments=True) for line in joined.splitlines())
        return [words for words in split if words]

    @property
    def title(self) -> str | None:
        """The file name under which a reader saves it."""
        found = re.search(r'title="([\w.-]+)"', self.beside)
        return found[1] if found else None


def page_id(page: Path) -> str:
    """Return a page's name for people."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return a page's fenced blocks in these languages."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("language")) + 1,
            found["language"],
            found["beside"],
            found["text"],
            found["mark"],
            found["reason"] or "",
        )
        for found in FENCE.finditer(text)
        if found["language"] in languages
    ]


def save_titled_blocks(folder: Path) -> None:
    """Save every block that has a file's name, as a reader would."""
    for page in PAGES:
        for block in blocks(page, "yaml", "markdown", "json"):
            if block.title:
                (folder / block.title).write_text(block.text, encoding="utf-8")


def environment_of(words: list[str]) -> dict[str, str] | None:
    """Return what an `export` sets; None for another command."""
    if words[0] != "export":
        return None
    assert all(_ASSIGNMENT.match(word) for word in words[1:])
    return dict(word.split("=", 1) for word in words[1:])
