"""Pictures as SVG by matplotlib: text stays text, screen readers are told what they show.

    picture = render(paint, (7, 4), "radar", "Radar of the models", "base: safety 0.61, …")
    write_whole(folder / "radar.svg", picture)
    inline(picture)                # the same as an <svg> element for an HTML page, dark or light

`paint` is given an empty figure. The same data give the same file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape, quoteattr

# Okabe and Ito's colours, which most colour-blind people tell apart; the yellow is too faint here.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6b6b6b")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
LINES = ("-", "--", ":", "-.")

# A style rule and metadata would reach beyond the picture in a page, whose own text colour and
# ground it takes.
_PAGE = (
    (r"<metadata>.*?</metadata>", ""),
    (r"<style.*?</style>", ""),
    (r' xmlns(:xlink)?="[^"]*"', ""),
    ("#000000", "currentColor"),
    ("#ffffff", "none"),
)


def render(
    paint: Callable[[Any], None],
    size: tuple[float, float],
    name: str,
    title: str,
    description: str,
) -> str:
    """Return a whole SVG file.

    Args:
        paint: draws into a matplotlib figure.
        size: width and height in inches.
        name: unique on a page; ids begin with it.
        title: what the picture is of.
        description: what it shows, in words and numbers.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Names of models are data: a dollar sign in one is no mathematics.
    settings = {"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False}
    with mpl.rc_context(settings):
        # A figure of its own, not pyplot's: nothing global is left behind in the process.
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    # Groups of two pictures on one page must not have the same ids.
    picture = re.sub(r'(<g) id="[^"]*"', r"\1", buffer.getvalue())
    return accessible(picture, name, title, description)


def accessible(svg: str, name: str, title: str, description: str) -> str:
    """Add what a screen reader says: role, title and description of the whole picture."""
    head, tag, rest = svg.partition("<svg ")
    attributes, end, body = rest.partition(">")
    labels = f'role="img" aria-labelledby={quoteattr(f"{name}-title {name}-description")} '
    words = (
        f'<title id="{name}-title">{escape(_printable(title))}</title>'
        f'<desc id="{name}-description">{escape(_printable(description))}</desc>'
    )
    return f"{head}{tag}{labels}{attributes}{end}{words}{body}"


def inline(picture: str) -> str:
    """Return a file's <svg> element for an HTML page, in the page's own colours."""
    element = picture[picture.index("<svg ") :]
    for old, new in _PAGE:
        element = re.sub(old, new, element, flags=re.DOTALL)
    return element


def look(number: int) -> dict[str, Any]:
    """Return colour, marker and line of the n-th of several things."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
    }


def label(text: str, most: int = 36) -> str:
    """Return text of data as one short line."""
    shown = _printable(text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())
