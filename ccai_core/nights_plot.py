"""The trend of the nights as an SVG: a panel a measure, with its limits and what is out of control.

Text stays text, and the picture carries a title and a description for screen readers.

    draw_nights(history.nights(), out / "nights.svg")
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from ccai_core.files import write_whole
from ccai_core.nights import Night

_VALUE, _LIMIT, _ALARM = "#0072b2", "#777777", "#d55e00"
_SHOWN = 90
_TITLE = "Nightly evaluation: the champion against its baseline"


def draw_nights(nights: Sequence[Night], target: Path) -> bool:
    """Draw the champion's last nights into `target`; False: nothing was measured yet."""
    measured = [each for each in nights if each.status == "measured" and each.role == "champion"]
    if not measured:
        return False
    measured = measured[-_SHOWN:]
    keys = list(dict.fromkeys(key for night in measured for key in night.measures))
    simulated = any(night.simulated for night in measured)
    title = f"{_TITLE} (SIMULATED: these numbers were drawn)" if simulated else _TITLE
    write_whole(target, _picture(measured, keys, title))
    return True


def describe(nights: Sequence[Night], keys: Sequence[str]) -> str:
    """Return the picture in words."""
    said = []
    for key in keys:
        of_key = [night for night in nights if key in night.measures]
        low = [str(night.night) for night in of_key if key in night.regressions]
        last = of_key[-1].measures[key]
        said.append(
            f"{key}: {len(of_key)} nights, the last {last.difference:+.3f}; "
            + (f"below the lower limit on {', '.join(low)}." if low else "never below its limit.")
        )
    return " ".join(said)


def _picture(nights: Sequence[Night], keys: Sequence[str], title: str) -> str:
    # Seconds to import, and most of the program never draws.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ccai"}):
        figure = Figure(figsize=(9, 1 + 2.1 * len(keys)), layout="constrained")
        axes = figure.subplots(len(keys), 1, sharex=True, squeeze=False)[:, 0]
        for at, key in zip(axes, keys, strict=True):
            _panel(at, nights, key)
        figure.suptitle(title, fontsize=11)
        figure.autofmt_xdate()
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    words = f"<title>{escape(title)}</title><desc>{escape(describe(nights, keys))}</desc>"
    before, svg, after = file.getvalue().partition("<svg")
    head, close, rest = after.partition(">")
    return f'{before}{svg} role="img"{head}{close}{words}{rest}'


def _panel(at: Any, nights: Sequence[Night], key: str) -> None:
    shown = [night for night in nights if key in night.measures]
    days: list[Any] = [night.night for night in shown]
    values = [night.measures[key].difference for night in shown]
    points = [night.charts[key].difference if key in night.charts else None for night in shown]
    at.plot(days, values, color=_VALUE, marker="o", markersize=3, linewidth=1)
    for name, style in (("centre", "-"), ("low", "--"), ("high", "--")):
        line = [getattr(point, name, None) for point in points]
        numbers = [float("nan") if value is None else value for value in line]
        at.plot(days, numbers, color=_LIMIT, linestyle=style, linewidth=0.8)
    out = [n for n, night in enumerate(shown) if key in night.regressions]
    at.plot(
        [days[n] for n in out],
        [values[n] for n in out],
        color=_ALARM,
        marker="v",
        markersize=8,
        linestyle="",
    )
    at.set_title(f"{key}, trained − baseline", fontsize=9, loc="left")
    at.grid(visible=True, alpha=0.3)
