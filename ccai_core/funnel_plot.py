"""The funnel as an SVG: from candidates through every reason of rejection to pairs.

What was lost hangs below what there was: each bar of a reason begins where the one before it ends,
so that the eye follows how the number shrinks.

    write_whole(folder / "plots/funnel.svg", draw_funnel(funnel))
"""

from __future__ import annotations

import io
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ccai_core.svg import accessible

if TYPE_CHECKING:
    from ccai_core.pair_collector import Funnel

_TITLE = "From candidates to pairs"
# Okabe and Ito's colours, which most colour-blind people tell apart.
_KEPT, _LOST, _SPARE = "#0072b2", "#d55e00", "#999999"
_BAR, _MARGIN = 0.27, 0.9  # inches


def draw_funnel(funnel: Funnel) -> str:
    """Return the funnel as an SVG file's text; the same funnel gives the same text."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    bars = _bars(funnel)
    # A figure of its own, not pyplot's: nothing global is left behind in the process.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ccai-funnel"}):
        figure = Figure(figsize=(9, len(bars) * _BAR + _MARGIN), layout="constrained")
        FigureCanvasSVG(figure)
        _paint(figure.subplots(), bars)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return accessible(buffer.getvalue(), "funnel", _TITLE, describe(funnel))


def describe(funnel: Funnel) -> str:
    """Say in one or two sentences what the picture shows."""
    first, *lost, accepted, surplus, pairs = funnel.steps()
    reasons = ", ".join(f"{count:,} {what[0].lower()}{what[1:]}" for what, count in lost)
    return (
        f"{first[1]:,} candidates; rejected: {reasons or 'none'}. {accepted[1]:,} passed every "
        f"filter, {surplus[1]:,} of them beyond the balanced number: {pairs[1]:,} pairs."
    )


def _bars(funnel: Funnel) -> list[tuple[str, int, int, str]]:
    """Return (label, where it begins, width, colour) of each bar, from top to bottom."""
    (first, candidates), *lost, accepted, surplus, pairs = funnel.steps()
    ends = [candidates - gone for gone in accumulate(count for _, count in lost)]
    return [
        (first, 0, candidates, _KEPT),
        *((what, end, count, _LOST) for (what, count), end in zip(lost, ends, strict=True)),
        (accepted[0], 0, accepted[1], _KEPT),
        (surplus[0], pairs[1], surplus[1], _SPARE),
        (pairs[0], 0, pairs[1], _KEPT),
    ]


def _paint(axes: Any, bars: list[tuple[str, int, int, str]]) -> None:
    labels, begins, widths, colours = zip(*bars, strict=True)
    places = range(len(bars))
    drawn = axes.barh(places, widths, left=begins, color=colours, height=0.72)
    whole = max(1, widths[0])
    shares = [f"{width:,}  ({100 * width / whole:.1f}%)" for width in widths]
    axes.bar_label(drawn, labels=shares, padding=4, fontsize="small")
    axes.set_yticks(places, labels, fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.16, y=0.01)
    axes.set_xlabel("Candidates (a prompt under a principle)")
    axes.set_title(_TITLE, loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
