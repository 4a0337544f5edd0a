"""What a data set holds as pictures: rows by principle, source or hazard, and lengths of texts.

SVG with text as text, and a title and description for screen readers; the same rows give the same
file.

    draw_plots(folder, info, word_counts(pairs), funnel)      # ['plots/counts.svg', …]
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from ccai_core.dataset_info import DatasetInfo
from ccai_core.files import write_whole
from ccai_core.funnel_plot import draw_funnel
from ccai_core.types import Split

if TYPE_CHECKING:
    from ccai_core.pair_collector import Funnel

PLOTS_FOLDER = "plots"
# Okabe and Ito's colours, which most colour-blind people tell apart.
_COLOURS: Mapping[Split, str] = {"train": "#0072b2", "validation": "#d55e00", "test": "#009e73"}
_TEXT_COLOURS = {"prompt": "#555555", "rejected": "#d55e00", "chosen": "#0072b2"}
_MOST_BARS = 20
_SHARES = [step / 200 for step in range(201)]
_BAR, _PANEL_EXTRA = 0.24, 0.8  # inches


def draw_plots(
    folder: Path,
    info: DatasetInfo,
    words: Mapping[str, Sequence[int]],
    funnel: Funnel | None = None,
) -> list[str]:
    """Draw what there is into the data set's folder; returns the files as seen from there."""
    drawn: dict[str, str] = {}
    if info.counts:
        drawn["counts"] = counts_svg(info)
    if words:
        drawn["words"] = words_svg(words)
    if funnel:
        drawn["funnel"] = draw_funnel(funnel)
    for name, picture in drawn.items():
        write_whole(folder / PLOTS_FOLDER / f"{name}.svg", picture)
    return [f"{PLOTS_FOLDER}/{name}.svg" for name in drawn]


def counts_svg(info: DatasetInfo) -> str:
    """Return rows by each column as stacked bars, a panel a column."""
    panels = [(name, dict(list(of.items())[:_MOST_BARS])) for name, of in info.counts.items()]
    heights = [len(values) * _BAR + _PANEL_EXTRA for _, values in panels]

    def paint(figure: Any) -> None:
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
        for axes, (name, values) in zip(grid[:, 0], panels, strict=True):
            _bars(axes, name, values)
        keys = {
            label: handle
            for axes in grid[:, 0]
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            keys.values(), keys.keys(), loc="outside lower center", ncols=3, frameon=False
        )

    told = "; ".join(
        f"{name}: " + ", ".join(f"{value} {sum(of.values())}" for value, of in values.items())
        for name, values in panels
    )
    return _svg(paint, (7, sum(heights) + 0.5), "Rows of the data set", told)


def words_svg(words: Mapping[str, Sequence[int]]) -> str:
    """Return the distribution of words a text, one line a column."""

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for name, counts in words.items():
            colour = _TEXT_COLOURS.get(name, "#000000")
            axes.plot(_quantiles(counts), _SHARES, label=name, color=colour)
        axes.set_xlabel("Words")
        axes.set_ylabel("Share of texts with at most as many")
        axes.grid(visible=True, alpha=0.3)
        axes.legend(frameon=False)

    told = ", ".join(f"{name} up to {max(counts)} words" for name, counts in words.items())
    return _svg(paint, (7, 3.4), "Lengths of the texts", told)


def _quantiles(counts: Sequence[int]) -> list[int]:
    """Return the counts at a few shares: a point a text would make a picture of megabytes."""
    order = sorted(counts)
    return [order[round(share * (len(order) - 1))] for share in _SHARES]


def _bars(axes: Any, name: str, values: Mapping[str, Mapping[Split, int]]) -> None:
    places = range(len(values))
    left = [0] * len(values)
    for split, colour in _COLOURS.items():
        widths = [of.get(split, 0) for of in values.values()]
        if any(widths):
            axes.barh(places, widths, left=left, color=colour, label=split)
            left = [before + width for before, width in zip(left, widths, strict=True)]
    # parse_math: a source may be called "$x", which is not mathematics.
    axes.set_yticks(places, [_label(value) for value in values], parse_math=False)
    axes.invert_yaxis()
    axes.bar_label(axes.containers[-1], labels=[f"{total:,}" for total in left], padding=3)
    axes.margins(x=0.12)
    axes.set_title(name, loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)


def _label(value: str) -> str:
    shown = "".join(character for character in value if character.isprintable())
    return shown if len(shown) <= 32 else f"{shown[:31]}…"


def _svg(
    paint: Callable[[Any], None], size: tuple[float, float], title: str, description: str
) -> str:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # A figure of its own, not pyplot's: nothing global is left behind in the process.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    head, tag, rest = buffer.getvalue().partition("<svg ")
    attributes, end, body = rest.partition(">")
    words = f"<title>{escape(title)}</title><desc>{escape(_label_all(description))}</desc>"
    return f'{head}{tag}role="img" aria-label="{title}" {attributes}{end}{words}{body}'


def _label_all(text: str) -> str:
    return "".join(character for character in text if character.isprintable())
