"""Writes docs/reference.md: every setting of every flow, read off the settings models themselves.

tests/test_docs.py fails when the page on disk is not what this makes.

    python docs/generate_reference.py            # or: make reference
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import time
from importlib.resources import files
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

# A script's own folder is on the path, the checkout above it is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.compare_config import CompareConfig
from flows.config import (
    EvaluationFlowConfig,
    PoCConfig,
    PreferenceDataConfig,
    PrepareDataConfig,
    TrainingFlowConfig,
)
from flows.human_evaluation_config import BuildReviewConfig, CollectReviewConfig
from flows.nightly_config import NightlyConfig
from flows.paper_config import PaperConfig
from flows.promote_config import PromoteConfig
from flows.release_config import (
    ReleaseBuildConfig,
    ReleasePushConfig,
    ReleaseSmokeConfig,
    ReleaseVerifyConfig,
)
from flows.reproduce_config import ReproduceConfig
from flows.serve_config import ServeConfig
from flows.stack_config import DemoConfig, PlaceConfig, StackConfig
from flows.sweep_config import SweepConfig
from flows.validation_config import ValidationConfig
from infra.cluster import ClusterConfig, Container, FleetDefaults, Limits

PAGE = Path(__file__).with_name("reference.md")
FLOWS: dict[str, type[BaseModel]] = {
    "poc": PoCConfig,
    "prepare_data": PrepareDataConfig,
    "preference_data": PreferenceDataConfig,
    "training": TrainingFlowConfig,
    "sweep": SweepConfig,
    "evaluation": EvaluationFlowConfig,
    "validation": ValidationConfig,
    "nightly": NightlyConfig,
    "promote": PromoteConfig,
    "serve": ServeConfig,
    "stack up": StackConfig,
    "stack demo": DemoConfig,
    "stack down": PlaceConfig,
    "compare": CompareConfig,
    "human_evaluation build": BuildReviewConfig,
    "human_evaluation collect": CollectReviewConfig,
    "paper": PaperConfig,
    "release build": ReleaseBuildConfig,
    "release verify": ReleaseVerifyConfig,
    "release smoke": ReleaseSmokeConfig,
    "release push": ReleasePushConfig,
    "reproduce": ReproduceConfig,
}

_HEAD = """\
# Reference

Every setting of every flow, with its option, its key in a YAML file, its default and its limits.
This page is generated: change the field's description in the code, then run
`python docs/generate_reference.py`. How defaults, presets, files and options are layered is in
[Configuration](configuration.md).

A yes/no setting has two options, `--scenarios` and `--no-scenarios`; one that may also be unset
takes a word, `--training.gradient-checkpointing True`. A setting of several values takes them after
one option: `--prompts a.csv b.jsonl`. Unset is `None` on the command line and `null` in YAML.

Beside these, every flow has `--preset NAME`, `--config FILE`, `--dry-run` and `--help`.
"""
_COLUMNS = "| option | YAML key | values | default | |\n|---|---|---|---|---|"
_NAMES: dict[type, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    time: "time of day",
    bool: "yes or no",
}
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def render() -> str:
    """Return the whole page."""
    parts = [_HEAD]
    for name, kind in FLOWS.items():
        parts.append(f"## flows.{name}\n\n`python -m flows.{name}`: settings `{kind.__name__}`.\n")
        parts += [_table(title, rows) for title, rows in _groups(kind)]
    parts.append(_presets())
    parts.append(_cluster())
    return "\n".join(parts)


def options(kind: type[BaseModel]) -> list[str]:
    """Return the options of a flow's settings, e.g. '--training.epochs'."""
    return [option for _, rows in _groups(kind) for option, _, _ in rows]


def _groups(
    kind: type[BaseModel], option: str = "", key: str = "", title: str = ""
) -> Iterator[tuple[str, list[tuple[str, str, FieldInfo]]]]:
    """Yield a title and (option, key, field) rows for a model and the models inside it."""
    rows, inner = [], []
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            # Some groups stand without their own name on the command line (tyro's `name=""`).
            plain = any(getattr(each, "name", None) == "" for each in field.metadata)
            above = option if plain else f"{option}{name.replace('_', '-')}."
            inner.append((field.annotation, above, f"{key}{name}.", field.description or ""))
        else:
            words = f"{option}{name.replace('_', '-')}"
            # tyro's word for what stands without an option.
            positional = tyro.conf.Positional in field.metadata
            rows.append((words.upper() if positional else f"--{words}", f"{key}{name}", field))
    if rows:
        yield title, rows
    for annotation, above, below, description in inner:
        yield from _groups(annotation, above, below, f"{below[:-1]}: {description}")


def _table(title: str, rows: list[tuple[str, str, FieldInfo]]) -> str:
    heading = [f"**{_escape(title)}**\n"] if title else []
    lines = [
        f"| `{option}` | `{key}` | {_values(field)} | {_default(field)} | "
        f"{_escape(field.description or '')} |"
        for option, key, field in rows
    ]
    return "\n".join([*heading, _COLUMNS, *lines, ""])


def _values(field: FieldInfo) -> str:
    limits = [
        f"{sign} {value:,}"
        for each in field.metadata
        for name, sign in _SIGNS.items()
        if (value := getattr(each, name, None)) is not None
    ]
    unset = ["unset"] if NoneType in get_args(field.annotation) else []
    return _escape(", ".join([_type(field.annotation), *limits, *unset]))


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in {Union, UnionType}:
        return ", ".join(_type(each) for each in arguments if each is not NoneType)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is tuple:
        return f"several: {_type(arguments[0])}"
    if origin is dict:
        return f"{_type(arguments[0])} → {_type(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "keys of its own"
    return _NAMES[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, dict):
        return "none"
    if isinstance(value, time):
        return f"`{value:%H:%M}`"
    if isinstance(value, tuple):
        return " ".join(f"`{each}`" for each in value) or "none"
    return _escape(f"`{value:g}`" if isinstance(value, float) else f"`{value}`")


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _presets() -> str:
    parts = [
        "## Presets\n",
        "A preset is a YAML file of the same keys; a flow takes what it has settings for.\n",
    ]
    folder = files("flows") / "presets"
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        text = file.read_text(encoding="utf-8")
        yaml.safe_load(text)  # A page must not show what no flow can read.
        parts.append(
            f"`--preset {file.name.removesuffix('.yaml')}`\n\n```yaml\n{text.strip()}\n```\n"
        )
    return "\n".join(parts)


def _cluster() -> str:
    head = (
        "## Cluster profiles\n\n"
        "Keys of a profile, `--cluster NAME` or `--cluster FILE.yaml`.\n"
        "Without `name`, a profile is called as its file. `roles` maps `driver`, `fleet`, `train`\n"
        "and `evaluate` to keys from `account` to `sbatch`, which then count for those jobs.\n"
    )
    groups = {"": ClusterConfig, "limits": Limits, "fleet": FleetDefaults, "container": Container}
    return "\n".join([head, *(_keys(name, kind) for name, kind in groups.items())])


def _keys(group: str, kind: type[BaseModel]) -> str:
    lines = [
        f"| `{name}` | {_values(field)} | {_default(field)} | {_escape(field.description or '')} |"
        for name, field in kind.model_fields.items()
    ]
    heading = [f"**Under `{group}`**\n"] if group else []
    return "\n".join([*heading, "| key | values | default | |\n|---|---|---|---|", *lines, ""])


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(f"Wrote {PAGE}")
