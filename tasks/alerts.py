"""Tell people: by whatever Apprise reaches (Slack, e-mail, Teams, a webhook, a hundred more).

Addresses are secrets: they come from `$CCAI_ALERTS`, separated by spaces, or from the file that
`$CCAI_ALERTS_FILE` names, one a line, and are never written anywhere. The same alert is said once a
day, and no more than a few alerts an hour; every one is kept in `alerts.jsonl`, sent or not.

    python -m tasks.alerts test            # is everybody reached?

    alerts = Alerts(workspace.root)
    alerts.say("nightly/regression/safety", "Safety fell", "from 0.81 to 0.62; see …")
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from ccai_core.errors import ConfigError

logger = logging.getLogger(__name__)

Outcome = Literal["sent", "repeated", "too many", "nobody", "failed"]

_ONCE_IN = timedelta(hours=20)
_MOST_AN_HOUR = 10
_FILE = "alerts.jsonl"


def addresses() -> list[str]:
    """Return where alerts go; none: nowhere but the file and the log.

    Raises:
        ConfigError: the file that is named cannot be read.
    """
    found = os.environ.get("CCAI_ALERTS", "").split()
    if name := os.environ.get("CCAI_ALERTS_FILE"):
        try:
            lines = Path(name).expanduser().read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ConfigError(
                f"$CCAI_ALERTS_FILE: {name} cannot be read ({error.strerror})."
            ) from None
        found += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return found


def deliver(title: str, body: str) -> bool:
    """Send it to every address; whether all of them took it.

    Raises:
        ConfigError: an address is none that Apprise knows.
    """
    # A second to import, and most runs never alert.
    from apprise import Apprise

    sender = Apprise()
    # Its own log would write down an address that it cannot read, or whose server is away.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    for number, address in enumerate(addresses(), start=1):
        if not sender.add(address):
            # By its number: the address is a secret.
            raise ConfigError(
                f"Alert address {number} of $CCAI_ALERTS and its file is none that Apprise knows; "
                "its wiki lists them."
            )
    # Apprise sends nothing without a body.
    return bool(sender.notify(title=title, body=body or title))


class Alerts:
    """What was said of one workspace, so that nothing is said again and again."""

    def __init__(
        self, folder: Path, now: Callable[[], datetime] | None = None, silent: bool = False
    ) -> None:
        """`silent`: keep them, send none (a simulation)."""
        self._file, self._silent = folder / _FILE, silent
        self._now = now or (lambda: datetime.now(UTC))

    def say(self, key: str, title: str, body: str) -> Outcome:
        """Send an alert unless the same was said lately; says what became of it."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._file.with_suffix(".lock")):
            outcome = self._outcome(key, title, body)
            row = {"when": self._now().isoformat(), "key": key, "outcome": outcome}
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**row, "title": title, "body": body}) + "\n")
        level = logging.INFO if self._silent else logging.WARNING
        logger.log(level, "Alert (%s): %s\n%s", outcome, title, body)
        return outcome

    def said(self) -> list[dict[str, Any]]:
        """Return every alert there was."""
        if not self._file.exists():
            return []
        lines = self._file.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.strip()]

    def _outcome(self, key: str, title: str, body: str) -> Outcome:
        now = self._now()
        lately = [
            (row["key"], now - datetime.fromisoformat(row["when"]))
            for row in self.said()
            if row["outcome"] in ("sent", "nobody")
        ]
        if any(known == key and ago < _ONCE_IN for known, ago in lately):
            return "repeated"
        if sum(ago < timedelta(hours=1) for _, ago in lately) >= _MOST_AN_HOUR:
            return "too many"
        if self._silent:
            return "nobody"
        try:
            if not addresses():
                return "nobody"
            return "sent" if deliver(title, body) else "failed"
        except (ConfigError, OSError) as error:
            # Who has something to tell must not end because nobody can be told.
            logger.warning("The alert could not be sent (%s).", error)
            return "failed"


def main(arguments: Sequence[str]) -> int:
    """Send a test alert to every address, past all limits; returns the exit code."""
    if list(arguments) != ["test"]:
        print("usage: python -m tasks.alerts test\n\n" + (__doc__ or ""))
        return 0 if "--help" in arguments else 2
    try:
        count = len(addresses())
        if not count:
            raise ConfigError(
                "No alert addresses: set $CCAI_ALERTS, or name a file in $CCAI_ALERTS_FILE."
            )
        reached = deliver("CCAI: a test", "This is how an alert looks. Nothing is wrong.")
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Sent to {count} addresses." if reached else "Not every address took it.")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
