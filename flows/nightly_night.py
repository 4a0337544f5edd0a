"""One night of one model: measured once, judged, kept, and people told when something is wrong.

night = one_night(book, date(2026, 11, 26), "champion", measure)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from filelock import FileLock, Timeout

from ccai_core.nights import History, Measured, Night, Role
from flows.nightly_config import NightlyConfig
from tasks.alerts import Alerts

_TITLES = {"champion": "The champion", "challenger": "The challenger"}


class Source(NamedTuple):
    """Where a night's numbers come from."""

    model: str
    """Identity of the model."""
    baseline: str
    measure: Callable[[date], dict[str, Measured]]
    simulated: bool = False


class Book(NamedTuple):
    """What is known of all nights, and whom to tell."""

    history: History
    alerts: Alerts
    again: bool = False


def due(config: NightlyConfig, now: datetime) -> date:
    """Return the night that is due: today's from the appointed time on, before it yesterday's."""
    local = now.astimezone(ZoneInfo(config.time_zone))
    today = local.date()
    return today if local.time() >= config.at else today - timedelta(days=1)


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Hold the night: False is given when another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".nightly.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def one_night(book: Book, night: date, role: Role, source: Source) -> Night:
    """Measure, judge and keep one night; a night that was measured is found, not measured again.

    Nights that were missed since the last one are noted as such: tonight's run stands for them.
    """
    history, alerts = book.history, book.alerts
    if not book.again and (known := history.measured(night, role)):
        return known
    _note_missed(book, night, role)
    blank = Night(
        night=night,
        role=role,
        status="measured",
        model=source.model,
        baseline=source.baseline,
        began=datetime.now().astimezone().isoformat(timespec="seconds"),
        simulated=source.simulated,
    )
    began = time.monotonic()
    try:
        measures = source.measure(night)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"[:500]
        history.add(blank.model_copy(update={"status": "failed", "said": said}))
        alerts.say(
            f"nightly/failed/{role}/{night}", f"The nightly evaluation of {night} failed", said
        )
        raise
    seconds = time.monotonic() - began
    found = history.judged(blank.model_copy(update={"measures": measures, "seconds": seconds}))
    history.add(found)
    _tell(alerts, found)
    return found


def _note_missed(book: Book, night: date, role: Role) -> None:
    missed = book.history.gap(night, role)
    for each in missed:
        book.history.add(
            Night(night=each, role=role, status="missed", said="Nothing ran; not caught up.")
        )
    if missed:
        days = ", ".join(map(str, missed[:10]))
        book.alerts.say(
            f"nightly/missed/{role}/{missed[-1]}",
            f"{len(missed)} nights were missed",
            f"Nothing ran on {days}. Look whether `python -m flows.serve` runs.",
        )


def _tell(alerts: Alerts, night: Night) -> None:
    drawn = " (SIMULATED)" if night.simulated else ""
    if worse := night.regressions:
        alerts.say(
            f"nightly/regression/{night.role}/{night.model}/{','.join(worse)}",
            f"{_TITLES[night.role]} is worse than it was{drawn}",
            f"Night of {night.night}, {night.model}:\n"
            + "\n".join(_line(night, key) for key in worse),
        )
    if drifts := night.drifts:
        alerts.say(
            f"nightly/drift/{night.baseline}/{','.join(drifts)}",
            f"The nightly measuring has changed{drawn}",
            f"Night of {night.night}: the baseline {night.baseline} itself is not as before in "
            f"{', '.join(drifts)}. Look at what was installed or changed on the machine.",
        )


def _line(night: Night, key: str) -> str:
    at, measured = night.charts[key].difference, night.measures[key]
    return (
        f"{key}: {measured.difference:+.3f} against its baseline; the {at.before} nights before it "
        f"{at.centre:+.3f}, lower limit {at.low:+.3f} (n = {measured.n})"
    )
