"""One measure of all models: levels as evaluated, differences paired by item, trends over size.

measure = measure_of(seen, models, Columns(given), seed=0)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from ccai_core.comparison.results import Difference, Level, Measure, Model, Point, Series, Trend
from ccai_core.comparison.scaling import trend
from ccai_core.comparison.values import Columns
from ccai_core.evaluation.results import Interval, Metric


class Seen(NamedTuple):
    """One measure in one evaluation."""

    origin: int
    """Position of the evaluation."""
    place: int
    """Position of the measure in it."""
    metric: Metric
    baseline: str
    trained: str

    def pointer(self, name: str) -> str:
        """Return where a part of the measure is in the evaluation's JSON."""
        return f"/metrics/{self.place}/{name}"


def measure_of(
    seen: Sequence[Seen], models: Mapping[str, Model], columns: Columns, seed: int
) -> Measure:
    """Put together what evaluations say of one measure."""
    about = seen[0].metric
    levels = _levels(seen, models)
    own = [_own(each, models) for each in seen]
    return Measure(
        id=about.id,
        title=about.title,
        group=about.group,
        description=about.description,
        unit=about.unit,
        higher_is_better=about.higher_is_better,
        judged=about.judged,
        levels=tuple(levels[name] for name in models if name in levels),
        differences=(*own, *_others(seen, models, columns, seed)),
        trends=tuple(t for t in _trends(seen, models, levels, columns, seed) if t),
        missing=tuple(model.label for name, model in models.items() if name not in levels),
    )


def _levels(seen: Sequence[Seen], models: Mapping[str, Model]) -> dict[str, Level]:
    """Return each model's value, by identity; as the first evaluation that has it says."""
    levels: dict[str, Level] = {}
    for each in seen:
        sides = {"baseline": each.baseline, "trained": each.trained}
        for side, name in sides.items():
            level = Level(
                model=models[name].label,
                value=getattr(each.metric, side),
                n=each.metric.n,
                origin=each.origin,
                pointer=each.pointer(side),
            )
            levels.setdefault(name, level)
    return levels


def _own(seen: Seen, models: Mapping[str, Model]) -> Difference:
    """Return what an evaluation says of its two models."""
    return Difference(
        model=models[seen.trained].label,
        against=models[seen.baseline].label,
        difference=seen.metric.difference,
        p_value=seen.metric.p_value,
        p_corrected=None,
        test=seen.metric.test,
        n=seen.metric.n,
        own=True,
        origin=seen.origin,
        pointer=seen.pointer("difference"),
    )


def _others(
    seen: Sequence[Seen], models: Mapping[str, Model], columns: Columns, seed: int
) -> Iterator[Difference]:
    """Pair trained models with others' baselines and with each other, as far as items are kept."""
    own = {(each.trained, each.baseline) for each in seen}
    trained = list(dict.fromkeys(each.trained for each in seen))
    baselines = list(dict.fromkeys(each.baseline for each in seen))
    against_baselines = [(t, b) for t in trained for b in baselines if t != b]
    # Of two trained models the later one is compared with the earlier one.
    between = [(later, earlier) for earlier, later in combinations(trained, 2)]
    for model, against in dict.fromkeys((*against_baselines, *between)):
        pair = columns.pair(seen[0].metric.id, model, against)
        if (model, against) in own or pair is None:
            continue
        yield Difference(
            model=models[model].label,
            against=models[against].label,
            difference=pair.difference(seed),
            p_value=pair.p_value(seed),
            p_corrected=None,
            test=pair.test,
            n=len(pair.model),
            own=False,
            origin=None,
        )


def _trends(
    seen: Sequence[Seen],
    models: Mapping[str, Model],
    levels: Mapping[str, Level],
    columns: Columns,
    seed: int,
) -> Iterator[Trend | None]:
    """Fit the models before training, those after it, and what training changed."""
    measure = seen[0].metric.id
    series: dict[Series, list[str]] = {
        "before training": [each.baseline for each in seen],
        "after training": [each.trained for each in seen],
    }
    for name, members in series.items():
        sized = [m for m in dict.fromkeys(members) if models[m].parameters]
        points = [_point(models[m], levels[m].value) for m in sized]
        yield trend(points, [columns.column(measure, m) for m in sized], name, seed)
    changes = [each for each in seen if models[each.baseline].parameters]
    yield trend(
        [
            _point(models[each.baseline], each.metric.difference, models[each.trained].label)
            for each in changes
        ],
        [columns.column(measure, each.trained) for each in changes],
        "difference",
        seed,
        minus=[columns.column(measure, each.baseline) for each in changes],
    )


def _point(sized: Model, value: Interval, label: str = "") -> Point:
    return Point(model=label or sized.label, parameters=sized.parameters or 0, value=value)
