"""What the doctor finds, one line each: good, worth knowing, or bad, with what to do about it.

checks.append(bad("partition 'gqu' does not exist", "Did you mean 'gpu'?"))
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Literal, get_args
from urllib.parse import urlsplit

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ccai_core.config import Config
from infra.cluster import Role

ROLES: tuple[Role, ...] = get_args(Role)
_MARKS = {"good": ("✓", "green"), "note": ("!", "yellow"), "bad": ("✗", "red")}


class Check(Config):
    """One finding."""

    mark: Literal["good", "note", "bad"]
    """bad: it will not work; note: it will, but something is worth knowing."""
    text: str
    fix: str = ""


def good(text: str) -> Check:
    """Return a check that passed."""
    return Check(mark="good", text=text)


def note(text: str, fix: str = "") -> Check:
    """Return something that works and is worth knowing."""
    return Check(mark="note", text=text, fix=fix)


def bad(text: str, fix: str) -> Check:
    """Return a check that failed, and what to do about it."""
    return Check(mark="bad", text=text, fix=fix)


def by_role(found: Iterable[tuple[Role, Check]]) -> list[Check]:
    """Return equal findings once, each with the roles that it is about."""
    roles: dict[Check, list[Role]] = {}
    for role, check in found:
        roles.setdefault(check, []).append(role)
    return [
        check.model_copy(update={"text": f"{check.text} ({_listed(of)})"})
        for check, of in roles.items()
    ]


def _listed(roles: list[Role]) -> str:
    return "every role" if len(roles) == len(ROLES) else ", ".join(roles)


def show(title: str, checks: Sequence[Check], out: Console) -> None:
    """Print checks under a title."""
    out.print(Text(f"\n{title}", style="bold"))
    for check in checks:
        sign, colour = _MARKS[check.mark]
        out.print(_hanging(sign, check.text, indent=2, colour=colour))
        if check.fix:
            out.print(_hanging("→", check.fix, indent=4))


def _hanging(sign: str, text: str, indent: int, colour: str = "") -> Padding:
    """Lay out a text so that its further lines stand under its first."""
    row = Table.grid(padding=(0, 1))
    row.add_row(Text(sign, style=colour), Text(text))
    return Padding(row, (0, 0, 0, indent), expand=False)


def servers() -> dict[str, str]:
    """Return what else jobs may have to reach, by its name: http(s) URLs without passwords."""
    named = {
        "MLflow": os.environ.get("MLFLOW_TRACKING_URI", ""),
        "Prefect": os.environ.get("PREFECT_API_URL", ""),
    }
    return {
        name: re.sub(r"//[^/@]*@", "//", url)
        for name, url in named.items()
        if urlsplit(url).scheme in {"http", "https"}
    }


def is_loopback(url: str) -> bool:
    """Whether a URL means the machine itself, whichever that is."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1", "0.0.0.0"} or host.startswith("127.")  # noqa: S104
