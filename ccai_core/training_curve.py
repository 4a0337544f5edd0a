"""The training curve as an SVG: loss, margin and accuracy, on training and held-out pairs.

Training and validation differ in colour (a colour-blind-safe pair), line and marker, text stays
text, and the picture carries a title and a description for screen readers.

    draw(read_log(out / "training_log.jsonl"), out / "training_curve.svg")
    inline(entries)       # the same panels as <svg> elements for an HTML page
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from ccai_core.files import write_whole

_PANELS = (
    ("loss", "DPO loss (nats)"),
    ("margin", "Reward margin, chosen − rejected"),
    ("accuracy", "Share of pairs with chosen preferred"),
)
_TITLE = "DPO training curve"
_TRAINING, _VALIDATION = "#0072b2", "#d55e00"
# What a page's own colours and names take the place of. The style rule and the metadata would
# reach beyond the picture; ids of groups would be the same in every panel.
_PAGE = (
    (r"<metadata>.*?</metadata>", ""),
    (r"<style.*?</style>", ""),
    (r'(<g) id="[^"]*"', r"\1"),
    (r' xmlns(:xlink)?="[^"]*"', ""),
    ("#000000", "currentColor"),
    ("#ffffff", "none"),
    (_TRAINING, f"var(--training, {_TRAINING})"),
    (_VALIDATION, f"var(--validation, {_VALIDATION})"),
)
_Panels = Sequence[tuple[str, str]]
_Entries = Sequence[dict[str, Any]]


def draw(entries: _Entries, target: Path) -> None:
    """Draw the log's entries into `target`, replacing it whole."""
    picture = _picture(entries, _PANELS, (7, 8), _TITLE)
    write_whole(target, _accessible(picture, "curve", _TITLE, describe(entries)))


def inline(entries: _Entries) -> tuple[str, ...]:
    """Return one <svg> element a panel, for a page that sets --training and --validation.

    Lines and words take the page's text colour, so that the curve follows a dark page.
    """
    return tuple(_inline(entries, (metric, label)) for metric, label in _PANELS)


def _inline(entries: _Entries, panel: tuple[str, str]) -> str:
    metric, label = panel
    picture = _picture(entries, [panel], (4.2, 2.9))
    picture = picture[picture.index("<svg ") :]
    for old, new in _PAGE:
        picture = re.sub(old, new, picture, flags=re.DOTALL)
    return _accessible(picture, f"curve-{metric}", label, describe(entries, [panel]))


def describe(entries: _Entries, panels: _Panels = _PANELS) -> str:
    """Say in one or two sentences what the curve shows."""
    parts = []
    for event, name in (("step", "Training"), ("eval", "Validation")):
        mine = [entry for entry in entries if entry["event"] == event]
        if not mine:
            continue
        first, last = mine[0], mine[-1]
        changes = ", ".join(
            f"{metric} {_shown(first.get(metric))} to {_shown(last.get(metric))}"
            for metric, _ in panels
        )
        parts.append(f"{name}, steps {first['step']} to {last['step']}: {changes}.")
    return " ".join(parts) or "No steps were logged."


def _picture(
    entries: _Entries, panels: _Panels, size: tuple[float, float], title: str | None = None
) -> str:
    """Return a whole SVG file with one panel under the other."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # A figure of its own, not pyplot's: nothing global is left behind in a process that trains.
    # The salt makes the same log give the same file, and panels on one page different ids.
    salt = "ccai" if len(panels) > 1 else panels[0][0]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        for axes, (metric, label) in zip(grid[:, 0], panels, strict=True):
            _panel(axes, entries, metric, label)
        axes.set_xlabel("Step (weight updates)")
        if title:
            figure.suptitle(title)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _panel(axes: Any, entries: _Entries, metric: str, label: str) -> None:
    styles = (
        ("step", "training", {"color": _TRAINING, "linewidth": 1.2}),
        ("eval", "validation", {"color": _VALIDATION, "linestyle": "--", "marker": "o"}),
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


def _accessible(svg: str, name: str, title: str, description: str) -> str:
    """Add what a screen reader says: role, title and description of the whole picture."""
    head, tag, rest = svg.partition("<svg ")
    attributes, end, body = rest.partition(">")
    words = (
        f'<title id="{name}-title">{title}</title>'
        f'<desc id="{name}-description">{escape(description)}</desc>'
    )
    labels = f'role="img" aria-labelledby="{name}-title {name}-description" '
    return f"{head}{tag}{labels}{attributes}{end}{words}{body}"
