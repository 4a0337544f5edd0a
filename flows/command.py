"""From settings back to the command that gives them: what reports and closing words tell to type.

command_for("poc", config)     # 'python -m flows.poc --max-pairs 24 --generation.top-p 1.0'
"""

from __future__ import annotations

import shlex
from typing import Any, TypeVar

import tyro
from pydantic.fields import FieldInfo

from ccai_core.config import Config
from flows.config import PLAIN

C = TypeVar("C", bound=Config)


def command_for(flow: str, config: Config) -> str:
    """Return the command line whose settings are `config`."""
    return " ".join(["python -m", f"flows.{flow}", *map(shlex.quote, _words(config))])


def carried_over(config: Config, kind: type[C], **values: Any) -> C:
    """Return another flow's settings: those that both have as in `config`, and `values`."""
    shared = kind.model_fields.keys() & type(config).model_fields.keys() - values.keys()
    return kind(**{name: getattr(config, name) for name in sorted(shared)}, **values)


def _words(config: Config, above: str = "") -> list[str]:
    words: list[str] = []
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if value == field.get_default(call_default_factory=True, validated_data={}):
            continue
        if isinstance(value, Config):
            # Some groups stand without their own name on the command line.
            inner = above if PLAIN in field.metadata else f"{above}{name}."
            words += _words(value, inner)
        elif tyro.conf.Positional in field.metadata:
            # Before any option, which might take it for its own.
            words = [*map(str, value if isinstance(value, tuple) else (value,)), *words]
        else:
            words += _option(above, name, field, value)
    return words


def _option(above: str, name: str, field: FieldInfo, value: Any) -> list[str]:
    option = f"--{above}{name}".replace("_", "-")
    # One that may also be unset takes a word instead: --gradient-checkpointing True.
    if field.annotation is bool:
        return [option if value else f"--{above}no-{name}".replace("_", "-")]
    if isinstance(value, tuple):
        return [option, *map(str, value)]
    if isinstance(value, dict):
        return [option, *(str(word) for entry in value.items() for word in entry)]
    # With an equals sign, or a value that begins with a dash would be taken for an option.
    return [f"{option}={value}"] if str(value).startswith("-") else [option, str(value)]
