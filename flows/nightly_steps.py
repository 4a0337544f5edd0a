"""What the nightly evaluation does with real models: find them, measure them, show the trend, tidy.

source = night_source(site, config, sources, version)
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path

from ccai_core.embedded import EMBEDDED_MODEL
from ccai_core.errors import ConfigError, DataError
from ccai_core.evaluation.results import EvaluationResult, Metric
from ccai_core.models import ModelRef
from ccai_core.nights import History, Measured, Night
from ccai_core.nights_plot import draw_nights
from flows.command import carried_over
from flows.config import EvaluationFlowConfig
from flows.inputs import Sources
from flows.nightly_config import NightlyConfig
from flows.nightly_night import Source
from flows.stages import evaluate_pair
from infra.registry import Registry, Version
from infra.workspace import Workspace
from tasks.models import find_model
from tasks.shown import show_markdown
from tasks.site import Site

TREND_FILE = "nights.svg"
_NIGHTS = "nights"
# The same items every night, whatever the seed: they are counted once.
_ONLY_CORE = ("capability.",)
_COUNTED = ("share", "probability", "score")


def champion_of(registry: Registry) -> Version:
    """Return the version that is evaluated.

    Raises:
        ConfigError: there is none.
    """
    champion = registry.holder("champion")
    if champion is None:
        raise ConfigError(
            f"No version of {registry.name!r} has the alias 'champion' in {registry.uri}. Promote "
            "one: `python -m flows.promote --help`."
        )
    return champion


def night_source(site: Site, config: NightlyConfig, sources: Sources, version: Version) -> Source:
    """Return where a registered version's numbers come from."""
    baseline = _base_of(site, config, version)
    trained = _registered(site, version)
    measure = partial(_measure, site, config, sources, baseline, trained, version)
    return Source(trained.identity, baseline.identity, measure)


def _registered(site: Site, version: Version) -> ModelRef:
    """Return the version's weights, which are checked to be those that were registered."""
    found = find_model(site, str(version.path), fallback=False)
    name, _, revision = version.identity.rpartition("@")
    if found.revision != revision:
        raise ConfigError(
            f"{version.path} is not what was registered as version {version.number}: its weights "
            f"are {found.revision}, and were {revision}. Somebody has exchanged them."
        )
    return found.model_copy(update={"name": name})


def _base_of(site: Site, config: NightlyConfig, version: Version) -> ModelRef:
    """Return the very model that the version was made from."""
    base = version.about.get("base", "")
    name = base.partition("@")[0]
    # A hub's name and commit find it again; a folder's name and hash do not.
    on_the_hub = "embedded" if name == EMBEDDED_MODEL else base
    asked = on_the_hub if "/" in name else config.model
    found = find_model(site, asked, fallback=False)
    if base and found.identity != base:
        raise ConfigError(
            f"Version {version.number} of the model was made from {base}, and --model {asked} is "
            f"{found.identity}. Name the folder of {name} with --model."
        )
    return found


def _measure(
    site: Site,
    config: NightlyConfig,
    sources: Sources,
    baseline: ModelRef,
    trained: ModelRef,
    version: Version,
    night: date,
) -> dict[str, Measured]:
    """Evaluate on the core and on the night's own sample, in a folder of the night's own.

    Its own, because answers of last night must not be found and given again.
    """
    workspace = Workspace(site.workspace.root / _NIGHTS / night.isoformat() / f"v{version.number}")
    tonight = Site(workspace, site.cluster, site.tracking, site.run, site.show, site.owner)
    pairs = version.about.get("pairs")
    core, rotating = (
        evaluate_pair(
            tonight,
            carried_over(
                config,
                EvaluationFlowConfig,
                trained=str(version.path),
                evaluation=config.evaluation.model_copy(update={"seed": seed}),
            ),
            sources,
            baseline,
            trained,
            Path(pairs) if pairs else None,
        )
        for seed in (config.evaluation.seed, night.toordinal())
    )
    return combined(config.measures, core, rotating)


def combined(
    keys: Sequence[str], core: EvaluationResult, rotating: EvaluationResult
) -> dict[str, Measured]:
    """Return a night's measures over both samples, each item of them weighing alike.

    Raises:
        ConfigError: a measure is not in the evaluation, or is none that can be averaged.
        DataError: nothing counted.
    """
    found = {}
    for key in keys:
        parts = [_metric(core, key)]
        if not key.startswith(_ONLY_CORE):
            parts.append(_metric(rotating, key))
        n = sum(part.n for part in parts)
        if not n:
            raise DataError(f"{key}: no item counted, so the night cannot be judged.")
        better = 1 if parts[0].higher_is_better else -1
        baseline, trained, difference = (
            sum(part.n * getattr(part, name).estimate for part in parts) / n
            for name in ("baseline", "trained", "difference")
        )
        found[key] = Measured(
            baseline=baseline, trained=trained, difference=better * difference, n=n
        )
    return found


def _metric(result: EvaluationResult, key: str) -> Metric:
    there: Mapping[str, Metric] = {metric.id: metric for metric in result.metrics}
    fits = sorted(each.id for each in result.metrics if each.unit in _COUNTED)
    if key not in fits:
        raise ConfigError(
            f"--measures {key}: {'cannot be averaged' if key in there else 'was not measured'}. "
            f"Valid with suite {result.suite}: {', '.join(fits)}."
        )
    return there[key]


def show_trend(site: Site, history: History) -> Path:
    """Draw the trend, and show it in MLflow and in the Prefect UI."""
    nights = history.nights()
    trend = site.workspace.root / TREND_FILE
    if draw_nights(nights, trend):
        site.run.artifact(trend)
    show_markdown(trend_table(nights[-14:]), key="nightly", description="Last nights")
    return trend


def trend_table(nights: Sequence[Night]) -> str:
    """Return nights as a Markdown table, the newest first."""
    rows = [
        f"| {night.night} | {night.role} | {_state(night)} | {_numbers(night)} |"
        for night in reversed(nights)
    ]
    return "\n".join(
        ["| night | model | | difference to the baseline |", "|---|---|---|---|", *rows]
    )


def _state(night: Night) -> str:
    if night.regressions:
        return "**regression**"
    return "measuring changed" if night.drifts else night.status


def _numbers(night: Night) -> str:
    return ", ".join(f"{key} {it.difference:+.3f}" for key, it in night.measures.items())


def tidy(site: Site, config: NightlyConfig, history: History) -> list[str]:
    """Remove the answers of old nights, but not of those in which something was wrong."""
    wanted = {
        str(night.night)
        for night in history.nights()[-config.history :]
        if night.regressions or night.drifts
    }
    folder = site.workspace.root / _NIGHTS
    there = (
        sorted(each.name for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    )
    old = [name for name in there[: -config.keep] if name not in wanted]
    for name in old:
        shutil.rmtree(folder / name)
    return old
