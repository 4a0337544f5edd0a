"""The page itself: a template filled with results, every text escaped, nothing loaded.

Text of prompts, models and settings is data: it is escaped, never read as a template, and a content
security policy forbids any script but the page's own, whose hash it names.

    write_report(data, Path("runs/poc/report.html"))
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ccai_core.files import write_whole
from ccai_core.report import figures, words
from ccai_core.report.data import ReportData
from ccai_core.training_config import TrainingResult
from ccai_core.training_curve import METRICS, inline

# What no page may hold (controls, halves of characters), or what turns the order of the words
# around it; both are shown as the replacement character.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
_CURVE = ("step", *METRICS)


def headlines(data: ReportData) -> tuple[str, ...]:
    """Return the answers at the top of the page, a paragraph each, for consoles and logs."""
    return tuple(printable(str(line)) for line in words.headline(data.evaluation))


def render_report(data: ReportData) -> str:
    """Return the page as HTML; the same data give the same text."""
    result = data.evaluation
    constitution = data.constitution
    names = {p.id: p.name for p in constitution.principles} if constitution else {}
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            result=result,
            style=resource("report.css"),
            script=resource("report.js"),
            script_hash=policy_hash(resource("report.js")),
            headline=words.headline(result),
            panels=figures.forest(result.metrics),
            judged=[metric for metric in result.metrics if metric.judged],
            judge_doubt=words.judge_doubt(result.judge),
            curve=[Markup(panel) for panel in _curve(data.training_log)],  # noqa: S704 (made of numbers)
            training_rows=_training_rows(data.training) if data.training else [],
            funnel_bars=figures.funnel_bars(data.funnel) if data.funnel else (),
            principle_bars=figures.principle_bars(data.funnel, names) if data.funnel else (),
            principle_names=names,
            settings=list(flatten(data.settings)),
            artifacts=[(label, path, _link(path)) for label, path in data.artifacts.items()],
        )
    )


def write_report(data: ReportData, path: Path) -> None:
    """Write the page whole or not at all.

    Raises:
        ArtifactError: the folder cannot be written; a report that was there is left as it was.
    """
    write_whole(path, render_report(data))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ccai_core", "resources/report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        {
            name: getattr(words, name)
            for name in (
                "GROUPS", "calibration_reading", "cell", "excluded", "level", "outcome", "p_value",
                "plain", "reflow", "share", "signed", "span",
            )
        }
    )  # fmt: skip
    environment.globals |= {
        "share_place": figures.share_place,
        "share_row": figures.share_row,
        "duration": duration,
        "sort_key": sort_key,
    }
    return environment


@cache
def resource(name: str) -> Markup:
    """Return the style or the script that pages have in common."""
    text = (files("ccai_core.resources") / "report" / name).read_text("utf-8")
    return Markup(text)  # noqa: S704 (a file of this package)


def policy_hash(script: str) -> str:
    """Return what a content security policy calls a script by."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def printable(value: Any) -> Any:
    """Return text without characters that no page may hold; anything else as it is."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNPRINTABLE.sub("\ufffd", value)
    return value


def sort_key(value: float | None) -> str:
    """Return what a column of numbers is sorted by."""
    return "" if value is None or not math.isfinite(value) else repr(value)


def _link(path: str) -> str | None:
    """Return the address of a file beside the report; None for what would leave its folder tree."""
    return None if path.startswith(("/", "\\")) else f"./{quote(path)}"


def _curve(log: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the training curve of a log; nothing where no line has a number."""
    entries: list[dict[str, Any]] = []
    for line in log:
        numbers = {name: line[name] for name in _CURVE if _is_number(line.get(name))}
        if line.get("event") in ("step", "eval") and "step" in numbers and len(numbers) > 1:
            entries.append({"event": line["event"], **numbers})
    return inline(entries) if entries else ()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _training_rows(result: TrainingResult) -> list[tuple[str, str]]:
    pairs = f"{result.pairs_train} trained on, {result.pairs_validation} held out"
    if result.pairs_cut:
        pairs += f", {result.pairs_cut} left out as longer than {result.length_limit} tokens"
    rows = [
        ("Model before", result.base_model),
        ("Model after", result.model.identity),
        ("Method", {"full": "full (every weight)", "lora": "LoRA, merged"}[result.method]),
        ("Pairs", pairs),
        ("Longest sequence used", f"{result.longest} tokens"),
        ("Weight updates", f"{result.steps} in {result.epochs} epochs"),
        ("Training loss, last line of the log", f"{result.train_loss:.4f}"),
        ("Arithmetic", f"{result.precision} on {result.device}, saved as {result.saved_dtype}"),
        ("Time", duration(result.seconds)),
        ("Seed", str(result.seed)),
        ("Fingerprint of its inputs", result.inputs),
    ]
    if result.resumed_from is not None:
        rows.append(("Resumed", f"from the checkpoint of step {result.resumed_from}"))
    return rows


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as ('training.beta', '0.1')."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{name}.")
        elif isinstance(value, str):
            yield name, value
        else:
            yield name, json.dumps(value, ensure_ascii=False, default=str)


def duration(seconds: float) -> str:
    """Return 3700 as '1 h 2 min'."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
