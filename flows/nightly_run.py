"""The nightly evaluation from its settings to its summary.

summary = run_nightly(NightlyConfig())
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ccai_core.nights import History, Night, Role
from ccai_core.nights_plot import draw_nights
from flows.inputs import read_sources
from flows.nightly_config import NightlyConfig
from flows.nightly_night import Book, alone, due, one_night
from flows.nightly_simulation import replay
from flows.nightly_steps import TREND_FILE, champion_of, night_source, show_trend, tidy
from flows.results import Summary
from flows.session import open_site
from infra.registry import Registry, Version
from tasks.alerts import Alerts, addresses

_HISTORY = "history.jsonl"


def plan_nightly(config: NightlyConfig) -> str:
    """Say which night is due, and what would be done."""
    if config.simulate:
        return f"Replays {config.simulate} nights with drawn numbers in {_simulated(config)}"
    night = due(config, datetime.now(UTC))
    done = History(config.workspace.expanduser() / _HISTORY).is_done(night)
    size = config.evaluation.safety_prompts, config.evaluation.scenario_prompts
    lines = [
        f"Night of {night} ({config.time_zone}, due at {config.at:%H:%M})",
        f"  model      champion and challenger of {config.registered!r} in MLflow",
        f"  asked      {size[0]} safety prompts and {size[1]} scenarios, twice: core and rotating",
        f"  charted    {', '.join(config.measures)}",
        f"  alerts to  {len(addresses())} addresses",
    ]
    if done:
        lines.append("  measured already; nothing to do without --again")
    return "\n".join(lines)


def run_nightly(config: NightlyConfig) -> Summary:
    """Measure the night that is due, or replay a month.

    Raises:
        CCAIError: the registry, a model or the prompts cannot be used; alerted before.
    """
    if config.simulate:
        return _replayed(config)
    root = config.workspace.expanduser()
    alerts = Alerts(root)
    night = due(config, datetime.now(UTC))
    with alone(root) as held:
        if not held:
            return Summary(made={}, findings=("Another nightly evaluation runs; this one ends.",))
        book = Book(History(root / _HISTORY, config.history), alerts, config.again)
        if not config.again and book.history.is_done(night):
            return Summary(made={}, findings=(f"The night of {night} was measured already.",))
        before = len(book.history.nights())
        try:
            return _measured(config, book)
        except Exception as error:
            # A failed measurement has told people itself.
            if not any(each.status == "failed" for each in book.history.nights()[before:]):
                alerts.say(
                    f"nightly/failed/{night}",
                    f"The nightly evaluation of {night} failed",
                    f"{type(error).__name__}: {error}"[:500],
                )
            raise


def _measured(config: NightlyConfig, book: Book) -> Summary:
    night = due(config, datetime.now(UTC))
    sources = read_sources(config)
    with open_site(config, "nightly", {"night": str(night)}) as site:
        registry = Registry(site.tracking.uri, config.registered)
        versions: dict[Role, Version] = {"champion": champion_of(registry)}
        if challenger := registry.holder("challenger"):
            versions["challenger"] = challenger
        found = [
            one_night(book, night, role, night_source(site, config, sources, version))
            for role, version in versions.items()
        ]
        for each in found:
            site.run.metrics(_numbers(each), step=night.toordinal())
        trend = show_trend(site, book.history)
        removed = tidy(site, config, book.history)
        return Summary(
            made={"trend": str(trend), "history": str(site.workspace.root / _HISTORY)},
            findings=tuple(line for each in found for line in _words(each)),
            notices=(f"Removed the answers of {', '.join(removed)}.",) if removed else (),
        )


def _replayed(config: NightlyConfig) -> Summary:
    folder = _simulated(config)
    outcome = replay(config, folder)
    trend = folder / TREND_FILE
    draw_nights(outcome.nights, trend)
    plan = config.simulation
    false = [n for n in outcome.alerted if not plan.is_worse(n)] + outcome.drifted
    planted = f"planted from night {plan.regression} on" if plan.regression else "none was planted"
    nights = ", ".join(map(str, outcome.alerted))
    alerted = f"nights {nights}" if nights else "no night"
    return Summary(
        made={"trend": str(trend), "history": str(folder / _HISTORY)},
        findings=(
            f"A regression was found on {alerted} ({planted}); false alarms, of changed measuring "
            f"too: {len(false)}.",
            f"Second starts turned away: {outcome.overlaps}. Nights missed: {outcome.missed}.",
        ),
        notices=("SIMULATED: the numbers were drawn, no model was asked, nobody was alerted.",),
    )


def _simulated(config: NightlyConfig) -> Path:
    return config.workspace.expanduser() / f"simulated-{config.simulation.seed}"


def _numbers(night: Night) -> dict[str, float]:
    return {
        f"nightly/{night.role}/{key}/{name}": float(getattr(measured, name))
        for key, measured in night.measures.items()
        for name in ("baseline", "trained", "difference")
    }


def _words(night: Night) -> list[str]:
    lines = []
    for key, measured in night.measures.items():
        at = night.charts[key].difference
        state = "REGRESSION" if at.is_low else "as before" if at.q is not None else "not judged yet"
        lines.append(
            f"{night.role}, {key}: {measured.difference:+.3f} (n = {measured.n}), {state}: "
            f"{at.before} nights before."
        )
    return lines
