"""The training curve as an SVG: loss, margin, accuracy, rewards, KL to the reference, speed.

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

from ccai_core.files import write_whole
from ccai_core.svg import accessible

_PANELS = (
    ("loss", "DPO loss (nats)"),
    ("margin", "Reward margin, chosen − rejected"),
    ("accuracy", "Share of pairs with chosen preferred"),
)
# There only if the log has them: simpo has no reference, and a log may be an older one's.
_MORE_PANELS = (
    ("reward", "Rewards of chosen and rejected answers"),
    ("kl_token", "KL to the reference on these answers (nats a token)"),
    ("tokens_per_second", "Tokens read a second"),
)
# Panels with more than one line: their metrics, and what each is called in the legend.
_LINES = {"reward": (("reward_chosen", " chosen"), ("reward_rejected", " rejected"))}
_SHARING = {line for lines in _LINES.values() for line, _ in lines}
_SECOND: dict[str, Any] = {"linestyle": ":", "marker": ""}
# More panels than these stand side by side.
_UNDER_EACH_OTHER = 3
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

METRICS = tuple(
    metric for name, _ in (*_PANELS, *_MORE_PANELS) for metric, _ in _LINES.get(name, ((name, ""),))
)
"""What is drawn, by its names in the log."""

_Entries = Sequence[dict[str, Any]]


def draw(
    entries: _Entries, target: Path, panels: _Panels | None = None, title: str = _TITLE
) -> None:
    """Draw the log's entries into `target`, replacing it whole.

    `panels` are (metric, label); None: those of DPO that there is something to draw in.
    """
    shown = _panels(entries) if panels is None else panels
    size = (7, 1 + 7 / 3 * len(shown)) if len(shown) <= _UNDER_EACH_OTHER else (11, 8.5)
    picture = _picture(entries, shown, size, title)
    write_whole(target, accessible(picture, "curve", title, describe(entries, shown)))


def inline(entries: _Entries) -> tuple[str, ...]:
    """Return one <svg> element a panel, for a page that sets --training and --validation.

    Lines and words take the page's text colour, so that the curve follows a dark page.
    """
    return tuple(_inline(entries, panel) for panel in _panels(entries))


def _panels(entries: _Entries) -> _Panels:
    """Return the panels that there is something to draw in, and the first ones in any case."""
    there = {name for entry in entries for name, value in entry.items() if value is not None}
    more = [panel for panel in _MORE_PANELS if there & {metric for metric, _ in _lines(panel[0])}]
    return (*_PANELS, *more)


def _lines(name: str) -> tuple[tuple[str, str], ...]:
    """Return the metrics of a panel, and what each adds to its name in the legend."""
    return _LINES.get(name, ((name, ""),))


def _inline(entries: _Entries, panel: tuple[str, str]) -> str:
    metric, label = panel
    picture = _picture(entries, [panel], (4.2, 2.9))
    picture = picture[picture.index("<svg ") :]
    for old, new in _PAGE:
        picture = re.sub(old, new, picture, flags=re.DOTALL)
    return accessible(picture, f"curve-{metric}", label, describe(entries, [panel]))


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
            for name, _ in panels
            for metric, _ in _lines(name)
            if event == "step" or metric != "tokens_per_second"
        )
        parts.append(f"{name}, steps {first['step']} to {last['step']}: {changes}.")
    return " ".join(parts) or "No steps were logged."


def _picture(
    entries: _Entries, panels: _Panels, size: tuple[float, float], title: str | None = None
) -> str:
    """Return a whole SVG file with one panel under the other, or two side by side."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # A figure of its own, not pyplot's: nothing global is left behind in a process that trains.
    # The salt makes the same log give the same file, and panels on one page different ids.
    salt = "ccai" if len(panels) > 1 else panels[0][0]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        columns = 1 if len(panels) <= _UNDER_EACH_OTHER else 2
        rows = -(-len(panels) // columns)
        grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
        # Down the first column, then the second: what belongs together stands together.
        places = list(grid.T.flat)
        for axes, (metric, label) in zip(places, panels, strict=False):
            _panel(axes, entries, metric, label)
        for unused in places[len(panels) :]:
            unused.remove()
        for bottom in [*places[rows - 1 : len(panels) : rows], places[len(panels) - 1]]:
            bottom.set_xlabel("Step (weight updates)")
            bottom.tick_params(labelbottom=True)
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
        for number, (line, which) in enumerate(_lines(metric)):
            points = [
                (entry["step"], entry[line])
                for entry in entries
                if entry["event"] == event and entry.get(line) is not None
            ]
            if points:
                look = {**style, **(_SECOND if number else {})}
                axes.plot(*zip(*points, strict=True), label=f"{name}{which}", **look)
                axes.legend(frameon=False, fontsize="small" if line in _SHARING else "medium")
    axes.set_title(label, loc="left", fontsize="medium")
    axes.grid(visible=True, alpha=0.3)


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
