"""The training curve as an SVG: loss, margin and accuracy, on training and held-out pairs.

Training and validation differ in colour (a colour-blind-safe pair), line and marker, text stays
text, and the picture carries a title and a description for screen readers.

    draw(read_log(out / "training_log.jsonl"), out / "training_curve.svg")
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_PANELS = (
    ("loss", "DPO loss (nats)"),
    ("margin", "Reward margin, chosen − rejected"),
    ("accuracy", "Share of pairs with chosen preferred"),
)
_TITLE = "DPO training curve"


def draw(entries: Sequence[dict[str, Any]], target: Path) -> None:
    """Draw the log's entries into `target`, replacing it whole."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # A figure of its own, not pyplot's: nothing global is left behind in a process that trains.
    # The salt makes the same log give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ccai"}):
        figure = Figure(figsize=(7, 8), layout="constrained")
        FigureCanvasSVG(figure)
        for axes, (metric, label) in zip(
            figure.subplots(len(_PANELS), 1, sharex=True), _PANELS, strict=True
        ):
            _panel(axes, entries, metric, label)
        axes.set_xlabel("Step (weight updates)")
        figure.suptitle(_TITLE)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    unfinished = target.with_name(f".{target.name}")
    unfinished.write_text(_accessible(buffer.getvalue(), describe(entries)), encoding="utf-8")
    unfinished.replace(target)


def describe(entries: Sequence[dict[str, Any]]) -> str:
    """Say in one or two sentences what the curve shows."""
    parts = []
    for event, name in (("step", "Training"), ("eval", "Validation")):
        mine = [entry for entry in entries if entry["event"] == event]
        if not mine:
            continue
        first, last = mine[0], mine[-1]
        changes = ", ".join(
            f"{metric} {_shown(first.get(metric))} to {_shown(last.get(metric))}"
            for metric, _ in _PANELS
        )
        parts.append(f"{name}, steps {first['step']} to {last['step']}: {changes}.")
    return " ".join(parts) or "No steps were logged."


def _panel(axes: Any, entries: Sequence[dict[str, Any]], metric: str, label: str) -> None:
    styles = (
        ("step", "training", {"color": "#0072B2", "linewidth": 1.2}),
        ("eval", "validation", {"color": "#D55E00", "linestyle": "--", "marker": "o"}),
    )
    for event, name, style in styles:
        points = [
            (entry["step"], entry[metric])
            for entry in entries
            if entry["event"] == event and entry.get(metric) is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), label=name, **style)
            axes.legend(frameon=False)
    axes.set_title(label, loc="left", fontsize="medium")
    axes.grid(visible=True, alpha=0.3)


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _accessible(svg: str, description: str) -> str:
    """Add what a screen reader says: role, title and description of the whole picture."""
    head, tag, rest = svg.partition("<svg ")
    attributes, end, body = rest.partition(">")
    words = (
        f'<title id="curve-title">{_TITLE}</title>'
        f'<desc id="curve-description">{escape(description)}</desc>'
    )
    labels = 'role="img" aria-labelledby="curve-title curve-description" '
    return f"{head}{tag}{labels}{attributes}{end}{words}{body}"
