"""A constitution: principles parsed from markdown, each with its critique and revision requests.

Two ways to write a principle (a file may mix them):

    ## Boundless care                      ## Honesty
    What it means.                         1. Choose the response that says what is uncertain.
    ### Critique                           2. Choose the response that ...
    ### Revision
    ### Criteria            (bullets)
    ### Example applications, ### Few-shot (bullets of **Label:** text)

    constitution = load_constitutional_config("my_constitution.md")
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic import Field

from ccai_core.config import Config
from ccai_core.control_tokens import find_control_token
from ccai_core.errors import ConfigError, DataError, did_you_mean
from ccai_core.types import fingerprint

DEFAULT_CONSTITUTION = "contemplative_principles"
_SECTIONS = ("critique", "revision", "criteria", "example applications", "few-shot")
_LABEL = re.compile(r"\*\*([A-Za-z]+):\*\*")


class Application(Config):
    """A worked example: a situation, a poor answer and a better one of similar length."""

    situation: str = Field(description="What the person says.")
    poor: str = Field(description="An answer that misses the principle.")
    better: str = Field(description="An answer that lives it.")


class FewShot(Config):
    """A whole worked episode that may be shown to the model first."""

    prompt: str = Field(description="What the person says.")
    response: str = Field(description="First answer.")
    critique: str = Field(description="What is wrong with it.")
    revision: str = Field(description="The better answer.")


class Principle(Config):
    """One principle and how a model is asked to apply it to its own answer."""

    id: str = Field(description="Slug of the name, e.g. 'non_duality'.")
    name: str = Field(description="Heading in the file.")
    description: str = Field("", description="What it means.")
    critique: str = Field(description="Request for a critique of the answer above.")
    revision: str = Field(description="Request for the better answer.")
    criteria: tuple[str, ...] = Field((), description="Yes/no questions that rate an answer.")
    applications: tuple[Application, ...] = Field((), description="Poor and better answers.")
    few_shot: tuple[FewShot, ...] = Field((), description="Worked episodes.")


class Constitution(Config):
    """All principles of one file."""

    name: str = Field(description="Title of the file.")
    preamble: str = Field("", description="Meta-principles: what stands before the first one.")
    principles: tuple[Principle, ...] = Field(description="In the order of the file.")

    @property
    def fingerprint(self) -> str:
        """Hash of the content; the same text at another path has the same."""
        return fingerprint(self.model_dump())

    @property
    def ids(self) -> tuple[str, ...]:
        """Principle ids in order."""
        return tuple(p.id for p in self.principles)

    def principle(self, name: str) -> Principle:
        """Return one principle by id.

        Raises:
            ConfigError: there is none of that id.
        """
        for principle in self.principles:
            if principle.id == name:
                return principle
        raise ConfigError(f"Unknown principle {name!r}.{did_you_mean(name, self.ids)}")

    def shots(self, count: int) -> tuple[FewShot, ...]:
        """Return up to `count` few-shot episodes, taken from the principles in turn."""
        rounds = max((len(p.few_shot) for p in self.principles), default=0)
        every = [
            p.few_shot[i] for i in range(rounds) for p in self.principles if i < len(p.few_shot)
        ]
        return tuple(every[:count])


def load_constitutional_config(path: Path | str | None = None) -> Constitution:
    """Read a constitution: a file, a shipped name, or (None) the four contemplative principles.

    Raises:
        DataError: the file is missing, empty or malformed; names file, line and what to do.
    """
    name = str(path or DEFAULT_CONSTITUTION)
    shipped = files("ccai_core.resources") / "constitutions"
    names = sorted(f.name.removesuffix(".md") for f in shipped.iterdir() if f.name.endswith(".md"))
    if name in names:
        return parse_constitution((shipped / f"{name}.md").read_text("utf-8"), f"{name}.md")
    try:
        text = Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: is not UTF-8 text (byte {error.start}).") from None
    except OSError as error:
        raise DataError(
            f"Constitution {name}: cannot be read ({error.strerror}). Give a markdown file, or a "
            f"shipped one: {', '.join(names)}."
        ) from None
    return parse_constitution(text, name)


@dataclass
class _Block:
    """A heading and what stands under it, as source lines [start, end) and the block tokens."""

    title: str
    line: int
    text: str = ""
    items: list[tuple[str, int]] = field(default_factory=list)
    ordered: bool = False
    inner: list[_Block] = field(default_factory=list)


def parse_constitution(text: str, where: str) -> Constitution:
    """Parse markdown into a Constitution; `where` names the file in errors.

    Raises:
        DataError: see `load_constitutional_config`.
    """
    if not text.strip():
        raise DataError(f"{where}: is empty. See docs/constitution.md for the format.")
    for number, line in enumerate(text.splitlines(), start=1):
        if token := find_control_token(line):
            raise DataError(
                f"{where} line {number}: contains the chat control token {token!r}; remove it."
            )
    title, preamble, blocks = _outline(text, where)
    seen: dict[str, int] = {}
    principles = []
    for block in blocks:
        principle = _principle(block, where)
        if principle.id in seen:
            raise DataError(
                f"{where} line {block.line}: principle {block.title!r} is already defined in line "
                f"{seen[principle.id]}; rename or remove one."
            )
        seen[principle.id] = block.line
        principles.append(principle)
    if not principles:
        raise DataError(f"{where}: has no principle; each begins with a '## Name' heading.")
    return Constitution(name=title, preamble=preamble, principles=tuple(principles))


def _outline(text: str, where: str) -> tuple[str, str, list[_Block]]:
    """Divide the file by headings: title, preamble, and a block a principle."""
    lines = text.splitlines()
    tokens = MarkdownIt().parse(text)
    heads = [
        (int(t.tag[1]), tokens[i + 1].content.strip(), t.map[0], t.map[1])
        for i, t in enumerate(tokens)
        if t.type == "heading_open" and t.map and t.level == 0
    ]
    title = next((name for level, name, _, _ in heads if level == 1), Path(where).stem)
    first = next((start for level, _, start, _ in heads if level == 2), len(lines))
    begin = next((end for level, _, _, end in heads if level == 1), 0)
    blocks: list[_Block] = []
    for i, (level, name, start, end) in enumerate(heads):
        if level == 1:
            continue
        until = heads[i + 1][2] if i + 1 < len(heads) else len(lines)
        block = _Block(name, start + 1, "\n".join(lines[end:until]).strip())
        block.items, block.ordered = _items(tokens, lines, end, until)
        if level == 2:
            blocks.append(block)
        elif level == 3 and blocks:
            blocks[-1].inner.append(block)
        else:
            raise DataError(
                f"{where} line {start + 1}: heading {name!r} has level {level} here; principles "
                "are '## Name' and their sections '### Critique', '### Revision', ..."
            )
    return title, "\n".join(lines[begin:first]).strip(), blocks


def _items(
    tokens: Sequence[Token], lines: list[str], start: int, end: int
) -> tuple[list[tuple[str, int]], bool]:
    """Return the top-level list items between two lines as (text, line number), and if numbered."""
    items = []
    ordered = False
    for token in tokens:
        if not token.map or not start <= token.map[0] < end:
            continue
        if token.type == "ordered_list_open" and token.level == 0:
            ordered = True
        if token.type == "list_item_open" and token.level == 1:
            raw = " ".join(line.strip() for line in lines[token.map[0] : token.map[1]])
            items.append((re.sub(r"^([-*+]|\d+[.)])\s+", "", raw).strip(), token.map[0] + 1))
    return items, ordered


def _principle(block: _Block, where: str) -> Principle:
    identity = re.sub(r"\W+", "_", block.title.casefold()).strip("_")
    if not identity:
        raise DataError(f"{where} line {block.line}: a principle needs a name after '##'.")
    if not block.inner and block.ordered:
        return _from_guidelines(identity, block)
    sections: dict[str, _Block] = {}
    for section in block.inner:
        name = section.title.casefold()
        if name not in _SECTIONS:
            hint = did_you_mean(name, _SECTIONS)
            raise DataError(
                f"{where} line {section.line}: unknown section {section.title!r}.{hint}"
            )
        if name in sections:
            raise DataError(f"{where} line {section.line}: second {section.title!r} section.")
        if not section.text:
            raise DataError(f"{where} line {section.line}: section {section.title!r} is empty.")
        sections[name] = section
    for needed in ("critique", "revision"):
        if needed not in sections:
            raise DataError(
                f"{where} line {block.line}: principle {block.title!r} has no '### "
                f"{needed.capitalize()}' section (or write it as a numbered list of guidelines)."
            )
    return Principle(
        id=identity,
        name=block.title,
        description=block.text,
        critique=_flow(sections["critique"].text),
        revision=_flow(sections["revision"].text),
        criteria=tuple(text for text, _ in _list_of(sections, "criteria", where)),
        applications=tuple(
            Application(**_labelled(text, ("situation", "poor", "better"), f"{where} line {line}"))
            for text, line in _list_of(sections, "example applications", where)
        ),
        few_shot=tuple(
            FewShot(**_labelled(text, tuple(FewShot.model_fields), f"{where} line {line}"))
            for text, line in _list_of(sections, "few-shot", where)
        ),
    )


def _from_guidelines(identity: str, block: _Block) -> Principle:
    wishes = [re.sub(r"(?i)^choose the (response|answer) that\s+", "", t) for t, _ in block.items]
    listed = " ".join(f"({i}) It {wish}" for i, wish in enumerate(wishes, start=1))
    return Principle(
        id=identity,
        name=block.title,
        critique=f"Read your answer above again. A good answer does this: {listed} Say in two "
        "sentences where your answer falls short the most.",
        revision="Now answer my question again so that all of this is true of it. Write only the "
        "new answer.",
        criteria=tuple(f"Is this true of the answer: it {wish}" for wish in wishes),
    )


def _flow(text: str) -> str:
    return " ".join(text.split())


def _list_of(sections: dict[str, _Block], name: str, where: str) -> list[tuple[str, int]]:
    if name not in sections:
        return []
    if not sections[name].items:
        raise DataError(
            f"{where} line {sections[name].line}: section {name!r} must be a bullet list."
        )
    return sections[name].items


def _labelled(text: str, labels: Iterable[str], where: str) -> dict[str, str]:
    parts = _LABEL.split(text)
    found = {
        label.casefold(): value.strip()
        for label, value in zip(parts[1::2], parts[2::2], strict=True)
    }
    wanted = list(labels)
    if sorted(found) != sorted(wanted) or not all(found.values()):
        need = " ".join(f"**{label.capitalize()}:** ..." for label in wanted)
        raise DataError(f"{where}: this item must be written as {need}")
    return found
