"""From evaluations to a comparison: models by measure, paired differences, trends. Pure.

comparison = build_comparison(read_results(paths), BuildConfig(), created, command)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from ccai_core.comparison.measures import Seen, measure_of
from ccai_core.comparison.reading import Given, refuse_unlike
from ccai_core.comparison.results import Comparison, Difference, Measure, Model, Origin
from ccai_core.comparison.scaling import LEAST_SIZES
from ccai_core.comparison.values import OF_TWO, Columns
from ccai_core.config import Config
from ccai_core.errors import ConfigError, DataError, did_you_mean
from ccai_core.evaluation.effects import holm


class BuildConfig(Config):
    """What is compared, and what no evaluation knows."""

    parameters: dict[str, int] = Field(
        {},
        description="Numbers of weights of models, where evaluations do not say: identity and "
        "number, e.g. my-model@3f2a 135000000.",
    )
    unjudged: bool = Field(
        False,
        description="Compare only measures that no judge stands behind; judges may then differ.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the bootstraps.")


def build_comparison(
    given: Sequence[Given],
    config: BuildConfig,
    created: str,
    command: str,
    origins: Sequence[Origin] | None = None,
) -> Comparison:
    """Compare evaluations.

    Raises:
        DataError: they are not of the same suite, prompts and judge.
        ConfigError: `parameters` names a model that is not there.
    """
    refuse_unlike(given, config.unjudged)
    models = _models(given, config)
    columns = Columns(given)
    measures = [
        measure_of(seen, models, columns, config.seed) for seen in _seen(given, config.unjudged)
    ]
    if not measures:
        raise DataError("These evaluations have no measure to compare.")
    return Comparison(
        created=created,
        command=command,
        suite=given[0].result.suite,
        judge=None if config.unjudged else given[0].result.judge,
        origins=tuple(origins or map(plain_origin, given)),
        models=tuple(models.values()),
        measures=tuple(_corrected(measures)),
        notes=tuple(_notes(given, models, columns, measures)),
    )


def plain_origin(given: Given) -> Origin:
    """Return what an evaluation's file alone says of where it is from."""
    return Origin(
        name=given.name,
        file=str(given.file),
        sha256=given.sha256,
        baseline=given.result.baseline_model,
        trained=given.result.trained_model,
    )


def _models(given: Sequence[Given], config: BuildConfig) -> dict[str, Model]:
    """Return every model by its identity, baselines first."""
    baselines = dict.fromkeys(each.result.baseline_model for each in given)
    trained = dict.fromkeys(each.result.trained_model for each in given)
    known = {name: size for each in given for name, size in each.result.parameters.items()}
    every = list({**baselines, **trained})
    for name in config.parameters:
        if name not in every:
            raise ConfigError(
                f"--parameters {name}: is none of the models.{did_you_mean(name, every)}"
            )
    labels = _labels(every)
    return {
        name: Model(
            identity=name,
            label=labels[name],
            roles=(
                *(("baseline",) if name in baselines else ()),
                *(("trained",) if name in trained else ()),
            ),
            parameters=config.parameters.get(name, known.get(name)),
        )
        for name in every
    }


def _labels(identities: Sequence[str]) -> dict[str, str]:
    """Return the last part of each name, with its revision where another one has the same."""
    short = {each: each.rpartition("@")[0].rpartition("/")[2] or each for each in identities}
    names = list(short.values())
    return {
        each: name if names.count(name) == 1 else f"{name}@{each.rpartition('@')[2][:8]}"
        for each, name in short.items()
    }


def _seen(given: Sequence[Given], unjudged: bool) -> Iterator[list[Seen]]:
    """Yield each measure with the evaluations that have it, in the order of the first."""
    found: dict[str, list[Seen]] = {}
    for origin, each in enumerate(given):
        baseline, trained = each.result.baseline_model, each.result.trained_model
        for place, metric in enumerate(each.result.metrics):
            if metric.n and not (unjudged and metric.judged):
                seen = Seen(origin, place, metric, baseline, trained)
                found.setdefault(metric.id, []).append(seen)
    yield from found.values()


def _corrected(measures: Sequence[Measure]) -> Iterator[Measure]:
    """Correct p-values for their number: those against one's own baseline, and all others."""
    corrected: dict[str, float] = {}
    for own in (True, False):
        corrected |= holm(
            {
                _key(measure, difference): difference.p_value
                for measure in measures
                for difference in measure.differences
                if difference.own is own and difference.p_value is not None
            }
        )
    for measure in measures:
        differences = tuple(
            each.model_copy(update={"p_corrected": corrected.get(_key(measure, each))})
            for each in measure.differences
        )
        yield measure.model_copy(update={"differences": differences})


def _key(measure: Measure, difference: Difference) -> str:
    return "\n".join((measure.id, difference.model, difference.against, str(difference.own)))


def _notes(
    given: Sequence[Given],
    models: Mapping[str, Model],
    columns: Columns,
    measures: Sequence[Measure],
) -> Iterator[str]:
    if given[0].result.judge.weak and any(measure.judged for measure in measures):
        yield (
            "The judge is weak: on answers whose quality is known it is not reliably right. Take "
            "judged measures as hints."
        )
    own = sum(d.own for m in measures for d in m.differences if d.p_value is not None)
    others = sum(not d.own for m in measures for d in m.differences if d.p_value is not None)
    yield (
        f"p-values are corrected (Holm) for {own} tests against a model's own baseline, and "
        f"separately for {others} between other models."
    )
    metrics = (metric for each in given for metric in each.result.metrics if metric.n)
    if not all(metric.items or metric.id == OF_TWO for metric in metrics):
        yield (
            "Some evaluations keep no values by item (older versions keep none): there a model is "
            "compared with its own baseline only."
        )
    for name, unsteady in columns.unsteady.items():
        yield (
            f"{models[name].label} was measured more than once, not always alike: "
            f"{', '.join(dict.fromkeys(unsteady))}. What the first evaluation found is shown."
        )
    for measure in measures:
        if measure.unit == "perplexity" and columns.cut_differently(measure.id):
            yield (
                f"{measure.title} is by token, and the models' tokenizers cut words differently: "
                "compare a model with its own baseline only."
            )
    unknown = [model.label for model in models.values() if model.parameters is None]
    if unknown:
        yield f"Size not known, and not in any trend: {', '.join(unknown)} (--parameters)."
    if not any(measure.trends for measure in measures):
        yield f"No trend over size: it needs {LEAST_SIZES} sizes, before or after training."
