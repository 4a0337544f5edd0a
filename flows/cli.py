"""The command line of every flow: presets, YAML and options over one settings model.

    python -m flows.poc --preset quick --config mine.yaml --max-pairs 100 --training.epochs 1

Later wins: defaults, preset, file, options. Exit code 0 is done, 1 done and what was checked does
not hold, 2 something for the user to mend (one paragraph), 130 interrupted or cancelled; a
traceback is a bug.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, make_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from prefect.exceptions import CancelledRun
from prefect.logging.handlers import PrefectConsoleHandler
from pydantic import ValidationError
from rich.logging import RichHandler

from ccai_core.config import Config, explain, load_yaml, parse_config
from ccai_core.errors import CCAIError, ConfigError, closest
from flows.console import Console
from flows.driver_job import sent_away
from flows.results import Summary
from infra.guard import guard_children

C = TypeVar("C", bound=Config)

NOT_PASSED, USER_ERROR, INTERRUPTED = 1, 2, 130


def preset_names() -> list[str]:
    """Return the shipped presets."""
    shipped = (files("flows") / "presets").iterdir()
    return sorted(each.name.removesuffix(".yaml") for each in shipped)


def about_presets() -> str:
    """Return a line a preset: its name, and what its file says first."""
    return "\n".join(f"{name}: {preset_about(name)}" for name in preset_names())


def preset_about(name: str) -> str:
    """Return what a preset's file says first."""
    text = (files("flows") / "presets" / f"{name}.yaml").read_text("utf-8")
    return text.split("\n")[0].lstrip("# ")


def preset_values(kind: type[Config], name: str) -> dict[str, Any]:
    """Return what a preset says about the settings of one flow.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in preset_names():
        valid = ", ".join(preset_names())
        raise ConfigError(
            f"--preset {name}: unknown.{closest(name, preset_names())} Valid: {valid}."
        )
    values = load_yaml(Path(str(files("flows") / "presets" / f"{name}.yaml")))
    return {key: value for key, value in values.items() if key in kind.model_fields}


def parse(
    kind: type[C],
    prog: str,
    description: str,
    arguments: Sequence[str],
    prints: Mapping[str, str] | None = None,
) -> tuple[C, list[str]]:
    """Return the settings that the command line asks for, and which of its switches are on.

    These are `dry_run` and what is in `prints`: further switches, with their help.

    Unknown options, --help and the like end the program the way argparse does.

    Raises:
        ConfigError: a value is wrong, or the preset or the file is.
    """
    first = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    first.add_argument("--config", type=Path)
    layers, _ = first.parse_known_args(list(arguments))
    values = preset_values(kind, layers.preset) if layers.preset else {}
    where = f"preset {layers.preset}"
    if layers.config:
        values, where = _merge(values, load_yaml(layers.config)), str(layers.config)
    switches = {"dry_run": "Say what would be done, and do nothing.", **(prints or {})}
    command = _command(kind, _start(kind, values, where), switches)
    try:
        parsed = tyro.cli(command, args=list(arguments), prog=prog, description=description)
    except ValidationError as error:
        raise ConfigError(explain(error, kind, "Settings")) from None
    return parsed.settings, [name for name in switches if getattr(parsed, name)]


def _start(kind: type[C], values: Mapping[str, Any], where: str) -> C:
    """Return the settings that options may change; what must still be given is MISSING."""
    open_ones = [n for n, f in kind.model_fields.items() if f.is_required() and n not in values]
    known = parse_config(kind, {**dict.fromkeys(open_ones, "-"), **values}, where)
    # Not validated on purpose: tyro asks for what is MISSING before it builds the settings.
    return known.model_copy(update=dict.fromkeys(open_ones, tyro.MISSING))


def _command(kind: type[C], start: C, switches: Mapping[str, str]) -> type[Any]:
    """Make the command: the options that every flow has, and the settings, unprefixed."""
    presets = Literal[tuple(preset_names())]  # type: ignore[valid-type]
    return make_dataclass(
        "Command",
        [
            (
                "preset",
                Annotated[presets | None, _help(f"Settings to begin with.\n{about_presets()}")],
                None,
            ),
            ("config", Annotated[Path | None, _help("YAML file; wins over the preset.")], None),
            *((name, Annotated[bool, _help(text)], False) for name, text in switches.items()),
            # A default of a dataclass must not look mutable, hence the factory.
            (
                "settings",
                Annotated[kind, tyro.conf.arg(name="")],
                field(default_factory=lambda: start),
            ),
        ],
    )


def _help(text: str) -> Any:
    return tyro.conf.arg(help=text)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(under, value) if both else value  # type: ignore[arg-type]
    return merged


def run_command(
    kind: type[C],
    flow: Callable[[C], Summary],
    plan: Callable[[C], str],
    *,
    prog: str,
    about: str | None,
    arguments: Sequence[str] | None = None,
    prints: Mapping[str, tuple[str, Callable[[C], str]]] | None = None,
    guarded: bool = True,
) -> int:
    """Be the `main` of a flow's module; returns the exit code.

    Args:
        kind: the flow's settings.
        flow: the Prefect flow; takes the settings, returns a `Summary`.
        plan: says what would be done; raises what is wrong with the inputs.
        prog: how the command is called.
        about: what --help begins with.
        arguments: the command line; None: the program's own.
        prints: further switches: help, and what is printed instead of doing anything.
        guarded: whether what it starts ends with it, however it ends.
    """
    out = Console()
    _quieten(out)
    try:
        arguments = sys.argv[1:] if arguments is None else arguments
        prints = prints or {}
        helps = {name: text for name, (text, _) in prints.items()}
        settings, switches = parse(kind, prog, about or "", arguments, helps)
        if asked := [prints[name][1](settings) for name in switches if name in prints]:
            print("\n".join(asked))
            return 0
        planned = plan(settings)
        out.out.print(planned, markup=False, highlight=False)
        if "dry_run" in switches:
            out.out.print("\nA dry run: nothing was done.")
            return 0
        out.out.print()
        if said := sent_away(settings, prog, arguments):
            out.out.print(said, markup=False, highlight=False)
            return 0
        if guarded:
            guard_children()
        with out.live():
            summary = flow(settings)
    except CCAIError as error:
        out.error(str(error))
        return USER_ERROR
    except CancelledRun:
        out.error("Cancelled; its jobs are ended. The same command goes on where it was.")
        return INTERRUPTED
    except KeyboardInterrupt:
        out.error("Interrupted; its jobs are ended. The same command goes on where it was.")
        return INTERRUPTED
    out.out.print("\n" + summary.text(), markup=False, highlight=False)
    return 0 if summary.passed else NOT_PASSED


def _quieten(out: Console) -> None:
    """Leave the terminal to the progress bars; the Prefect UI and the log files have it all."""
    # By the bars' own console: whatever else writes to the terminal tears them.
    shown = RichHandler(logging.WARNING, out.out, show_path=False, show_time=False)
    for name in ("ccai_core", "infra", "tasks"):
        logging.getLogger(name).addHandler(shown)
    # Prefect's own handler would repeat each error with a traceback, advice or not.
    for name in list(logging.root.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, PrefectConsoleHandler):
                handler.setLevel(logging.CRITICAL)
