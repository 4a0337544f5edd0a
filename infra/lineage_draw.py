"""A lineage as a tree for a terminal, as Mermaid for a page of Markdown, and as an SVG picture.

Console().print(tree(node))
write_whole(Path("lineage.svg"), drawing(node, ".svg"))
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from rich.text import Text
from rich.tree import Tree

from infra.lineage_trace import Node

FORMS = (".svg", ".mmd", ".md")
_WIDE, _HIGH, _GAP_X, _GAP_Y, _EDGE = 250, 44, 60, 16, 20
_LETTERS = 34
_GOOD, _BAD = "#0072b2", "#d55e00"  # of Okabe and Ito, which colour-blind people tell apart


def tree(node: Node) -> Tree:
    """Return a tree: the thing, and under each what it came from, each thing told once."""
    return _branch(node, set())


def _branch(node: Node, seen: set[tuple[str, str]]) -> Tree:
    # As text: names come from people's files and are no markup.
    made = Tree(Text.assemble((node.kind, "bold"), " ", node.name))
    if (node.kind, node.name) in seen:
        made.add(Text("see above", style="dim"))
        return made
    seen.add((node.kind, node.name))
    if node.origin and node.origin.command:
        command = f"by {node.origin.command}"
        made.add(Text(command, style="dim", overflow="ellipsis", no_wrap=True))
    for fact in node.facts:
        made.add(Text(fact, style="dim"))
    for problem in node.problems:
        made.add(Text(f"! {problem}", style="bold red"))
    for parent in node.parents:
        made.children.append(_branch(parent, seen))
    return made


def drawing(node: Node, form: str) -> str:
    """Return the picture as a file of the form `.svg`, `.mmd` (Mermaid) or `.md`."""
    if form == ".svg":
        return _svg(node)
    mermaid = "\n".join(_mermaid(node)) + "\n"
    return mermaid if form == ".mmd" else f"```mermaid\n{mermaid}```\n"


def _mermaid(node: Node) -> Iterator[str]:
    names = {(each.kind, each.name): f"n{at}" for at, each in enumerate(node.walk())}
    yield "flowchart LR"
    for each in node.walk():
        own = names[each.kind, each.name]
        # A quote would end the label, and a tag would be one.
        label = escape(f"{each.kind}: {each.name}", quote=True)
        yield f'    {own}["{label}"]{":::wrong" if each.problems else ""}'
        for parent in each.parents:
            yield f"    {names[parent.kind, parent.name]} --> {own}"
    yield f"    classDef wrong stroke:{_BAD},stroke-width:3px"


def _svg(node: Node) -> str:
    columns: dict[int, list[Node]] = {}
    for each, depth in _depths(node).items():
        columns.setdefault(depth, []).append(each)
    last = max(columns)
    place = {
        id(each): (_EDGE + (last - depth) * (_WIDE + _GAP_X), _EDGE + row * (_HIGH + _GAP_Y))
        for depth, column in columns.items()
        for row, each in enumerate(column)
    }
    wide = 2 * _EDGE + last * (_WIDE + _GAP_X) + _WIDE
    high = 2 * _EDGE + max(map(len, columns.values())) * (_HIGH + _GAP_Y) - _GAP_Y
    title = escape(f"Where {node.name} came from")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" role="img" '
        f'font-family="sans-serif" font-size="12"><title>{title}</title>'
        f'<rect width="{wide}" height="{high}" fill="#ffffff"/>'
    ]
    by_key = {(each.kind, each.name): each for column in columns.values() for each in column}
    for each in by_key.values():
        for parent in each.parents:
            start, end = place[id(by_key[parent.kind, parent.name])], place[id(each)]
            x, y, to_x, to_y = start[0] + _WIDE, start[1] + _HIGH / 2, end[0], end[1] + _HIGH / 2
            bend = (x + to_x) / 2
            parts.append(
                f'<path d="M{x},{y} C{bend},{y} {bend},{to_y} {to_x},{to_y}" fill="none" '
                'stroke="#6b6b6b"/>'
            )
    for each in by_key.values():
        parts.append(_box(each, *place[id(each)]))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(node: Node, x: float, y: float) -> str:
    colour = _BAD if node.problems else _GOOD
    told = escape("\n".join([node.name, *node.facts, *node.problems]))
    name = node.name if len(node.name) <= _LETTERS else f"{node.name[: _LETTERS - 1]}…"
    kind = f"{node.kind}{' (not as it was)' if node.problems else ''}"
    return (
        f'<g><title>{told}</title><rect x="{x}" y="{y}" width="{_WIDE}" height="{_HIGH}" rx="6" '
        f'fill="#ffffff" stroke="{colour}" stroke-width="{3 if node.problems else 1.5}"/>'
        f'<text x="{x + 10}" y="{y + 18}" font-weight="bold" fill="{colour}">{escape(kind)}</text>'
        f'<text x="{x + 10}" y="{y + 34}" fill="#000000">{escape(name)}</text></g>'
    )


def _depths(node: Node) -> dict[Node, int]:
    """Return how far each thing is from the one asked for, by the longest way."""
    far: dict[tuple[str, str], int] = {}

    def go(each: Node, depth: int) -> None:
        if far.get((each.kind, each.name), -1) < depth:
            far[each.kind, each.name] = depth
            for parent in each.parents:
                go(parent, depth + 1)

    go(node, 0)
    return {each: far[each.kind, each.name] for each in node.walk()}
