"""The pictures of a comparison: radar, forest, and curves over model size.

figures(comparison)      # {'radar': '<?xml …', 'forest': …, 'scaling': …}, those that can be drawn
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ccai_core.comparison.results import Comparison, Difference, Measure, Trend
from ccai_core.comparison.values import OF_TWO
from ccai_core.evaluation.results import Interval
from ccai_core.svg import COLOURS, LINES, MARKERS, label, look, render

LEAST_AXES = 3
_MOST_AXES = 9
# More lines than this are a tangle.
MOST_MODELS = 7
_COLUMNS = 2
_ROW, _PANEL_EXTRA = 0.26, 0.9  # inches
_AXES_OF = {
    "share": ("Difference in percentage points", 100),
    "probability": ("Difference in probability", 1),
    "perplexity": ("Difference in perplexity (lower is better)", 1),
    "score": ("Difference in grade", 1),
    "points": ("Difference in points a round", 1),
}


def figures(comparison: Comparison) -> dict[str, str]:
    """Return every picture that there is something to draw in, by name."""
    makers: dict[str, Callable[[Comparison], str | None]] = {
        "radar": radar,
        "forest": forest,
        "scaling": scaling,
    }
    drawn = {name: make(comparison) for name, make in makers.items()}
    return {name: picture for name, picture in drawn.items() if picture}


def radar_axes(comparison: Comparison) -> list[Measure]:
    """Return what a radar shows: measures from 0 to 1 where more is better, that all models have.

    The first of each group; all of them where groups are fewer than three.
    """
    able = [
        measure
        for measure in comparison.measures
        if measure.unit in ("share", "probability")
        and measure.higher_is_better
        and not measure.missing
        and measure.id != OF_TWO
    ]
    firsts = {measure.group: measure for measure in reversed(able)}
    chosen = [measure for measure in able if measure in firsts.values()]
    return chosen if len(chosen) >= LEAST_AXES else able[:_MOST_AXES]


def radar(comparison: Comparison) -> str | None:
    """Draw the models' levels on one scale from 0 to 1; nothing with fewer than three measures."""
    axes_of = radar_axes(comparison)
    models = [model.label for model in comparison.models][:MOST_MODELS]
    if len(axes_of) < LEAST_AXES:
        return None
    angles = [2 * math.pi * number / len(axes_of) for number in range(len(axes_of))]

    def paint(figure: Any) -> None:
        axes = figure.subplots(subplot_kw={"projection": "polar"})
        axes.set_theta_offset(math.pi / 2)
        axes.set_theta_direction(-1)
        for number, model in enumerate(models):
            values = [_level(measure, model) for measure in axes_of]
            axes.plot(
                [*angles, angles[0]], [*values, values[0]], label=label(model), markersize=4,
                linewidth=1.4, **look(number),
            )  # fmt: skip
        axes.set_xticks(angles, [label(measure.title, 26) for measure in axes_of], fontsize="small")
        axes.set_ylim(0, 1)
        axes.set_yticks([0.25, 0.5, 0.75, 1.0], ["0.25", "0.5", "0.75", "1"], fontsize="x-small")
        axes.grid(visible=True, alpha=0.4)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")

    told = "; ".join(
        f"{model}: " + ", ".join(f"{m.title} {_level(m, model):.2f}" for m in axes_of)
        for model in models
    )
    return render(paint, (6.4, 6.2), "radar", "Models on measures from 0 to 1", told)


def _level(measure: Measure, model: str) -> float:
    return next(level.value.estimate for level in measure.levels if level.model == model)


def forest(comparison: Comparison) -> str | None:
    """Draw what training changed, each model against its own baseline, a panel a unit."""
    units = dict.fromkeys(measure.unit for measure in comparison.measures)
    panels = {
        unit: [m for m in comparison.measures if m.unit == unit and _own(m)] for unit in units
    }
    panels = {unit: rows for unit, rows in panels.items() if rows}
    if not panels:
        return None
    models = list(dict.fromkeys(d.model for m in comparison.measures for d in _own(m)))
    heights = [
        sum(max(1, len(_own(m))) for m in rows) * _ROW + _PANEL_EXTRA for rows in panels.values()
    ]

    def paint(figure: Any) -> None:
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
        for axes, (unit, rows) in zip(grid[:, 0], panels.items(), strict=True):
            _forest_panel(axes, rows, models, *_AXES_OF[unit])
        figure.legend(
            *_legend(grid[:, 0]), loc="outside lower center", ncols=2, frameon=False,
            fontsize="small",
        )  # fmt: skip

    told = "; ".join(
        f"{m.title}, {d.model}: {_words(d)}"
        for rows in panels.values()
        for m in rows
        for d in _own(m)
    )
    title = "What training changed, with 95% intervals"
    return render(paint, (7.4, sum(heights) + 0.6), "forest", title, told)


def _own(measure: Measure) -> list[Difference]:
    return [each for each in measure.differences if each.own]


def _forest_panel(
    axes: Any, rows: Sequence[Measure], models: Sequence[str], title: str, scale: float
) -> None:
    at, places, names = 0.0, [], []
    for measure in rows:
        own = _own(measure)
        for step, each in enumerate(own):
            number = models.index(each.model)
            low, middle, high = (scale * end for end in _ends(each.difference))
            axes.errorbar(
                middle, at + step, xerr=[[middle - low], [high - middle]], capsize=2,
                linewidth=1.4, markersize=4, label=label(each.model),
                color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)],
            )  # fmt: skip
        places.append(at + (len(own) - 1) / 2)
        names.append(label(measure.title) + (" (judged)" if measure.judged else ""))
        at += len(own) + 0.6
    axes.axvline(0, color="#000000", linewidth=0.8)
    axes.set_yticks(places, names, fontsize="small")
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize="medium")
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def scaling(comparison: Comparison) -> str | None:
    """Draw every measure with a trend over size; nothing where there is none."""
    measures = [measure for measure in comparison.measures if measure.trends]
    if not measures:
        return None
    rows = -(-len(measures) // _COLUMNS)

    def paint(figure: Any) -> None:
        grid = figure.subplots(rows, _COLUMNS, squeeze=False)
        for axes, measure in zip(grid.flat, measures, strict=False):
            for number, trend in enumerate(_levels_of(measure)):
                _curve(axes, trend, number)
            axes.set_xscale("log")
            sizes = sorted({p.parameters for trend in measure.trends for p in trend.points})
            axes.set_xticks(sizes, [size_words(size) for size in sizes], fontsize="small")
            axes.minorticks_off()
            axes.set_title(label(measure.title), loc="left", fontsize="small")
            axes.grid(visible=True, alpha=0.3)
        for unused in list(grid.flat)[len(measures) :]:
            unused.remove()
        for axes in grid[-1]:
            axes.set_xlabel("Parameters", fontsize="small")
        figure.legend(
            *_legend(grid.flat), loc="outside lower center", ncols=2, frameon=False,
            fontsize="small",
        )  # fmt: skip

    told = "; ".join(
        f"{measure.title}, {trend.series}: {trend.slope.estimate:+.3f} for ten times the size "
        f"({trend.slope.low:+.3f} to {trend.slope.high:+.3f})"
        for measure in measures
        for trend in measure.trends
    )
    title = "Measures over model size, with fitted lines and their 95% intervals"
    return render(paint, (7.6, 2.5 * rows + 0.7), "scaling", title, told)


def size_words(parameters: float) -> str:
    """Return 135000000 as '135M'."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{letter}"
    return f"{parameters:.0f}"


def _levels_of(measure: Measure) -> list[Trend]:
    return [trend for trend in measure.trends if trend.series != "difference"]


def _curve(axes: Any, trend: Trend, number: int) -> None:
    colour = COLOURS[number % len(COLOURS)]
    sizes = [band.parameters for band in trend.line]
    lows, middles, highs = zip(*(_ends(band.value) for band in trend.line), strict=True)
    axes.fill_between(sizes, lows, highs, color=colour, alpha=0.18, linewidth=0)
    axes.plot(sizes, middles, color=colour, linestyle=LINES[number % len(LINES)], linewidth=1.3)
    at = [point.parameters for point in trend.points]
    ends = [_ends(point.value) for point in trend.points]
    axes.errorbar(
        at, [middle for _, middle, _ in ends],
        yerr=[[m - low for low, m, _ in ends], [high - m for _, m, high in ends]],
        color=colour, marker=MARKERS[number % len(MARKERS)], linestyle="", capsize=2, markersize=4,
        label=trend.series,
    )  # fmt: skip


def _legend(panels: Any) -> tuple[list[Any], list[str]]:
    """Return every label once."""
    handles = {
        name: handle
        for axes in panels
        if axes.figure is not None
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    return list(handles.values()), list(handles)


def _ends(interval: Interval) -> tuple[float, float, float]:
    """Return low, estimate and high in order, whatever rounding did to them."""
    middle = interval.estimate
    return min(interval.low, middle), middle, max(interval.high, middle)


def _words(difference: Difference) -> str:
    low, middle, high = _ends(difference.difference)
    return f"{middle:+.3f} ({low:+.3f} to {high:+.3f})"
