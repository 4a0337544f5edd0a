"""The page of a comparison: one file, every text escaped, nothing loaded, no prompt shown.

write_whole(folder / "comparison.html", render_page(comparison, figures(comparison)))
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ccai_core.comparison.results import Comparison
from ccai_core.comparison.words import change, firsts, headline, reading
from ccai_core.report import words
from ccai_core.report.page import policy_hash, printable, resource, sort_key
from ccai_core.svg import inline
from ccai_core.traced import run_address

_CAPTIONS = {
    "forest": "What training changed: each model minus its own baseline, on the same items, with "
    "95% intervals. Judged measures are marked.",
    "radar": "Every model on measures from 0 to 1 where more is better. Intervals are in the "
    "tables; a larger area is no measure of anything.",
    "scaling": "Measures over the logarithm of the number of weights, with least-squares lines and "
    "the 95% intervals of their bootstrap. Few sizes cannot show that a line is the right curve.",
}


def render_page(comparison: Comparison, pictures: Mapping[str, str]) -> str:
    """Return the page as HTML; the same data give the same text."""
    script = resource("report.js")
    shown = [
        (name, Markup(inline(pictures[name])), caption)  # noqa: S704 (matplotlib escapes its texts)
        for name, caption in _CAPTIONS.items()
        if name in pictures
    ]
    return (
        _environment()
        .get_template("comparison.html.j2")
        .render(
            comparison=comparison,
            headline=headline(comparison),
            firsts={measure.id for measure in firsts(comparison)},
            pictures=shown,
            trends=[(m, t) for m in comparison.measures for t in m.trends],
            style=resource("report.css"),
            script=script,
            script_hash=policy_hash(script),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ccai_core", "resources/comparison"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("GROUPS", "level", "p_value", "share", "signed", "span", "judge_doubt")
    environment.globals.update({name: getattr(words, name) for name in names})
    environment.globals |= {
        "change": change,
        "reading": reading,
        "run_address": run_address,
        "sort_key": sort_key,
    }
    return environment
