"""The base of every configuration model: frozen, complete, unknown keys rejected.

One model makes the YAML, the CLI, the Prefect form and the docs, so every field carries a
one-line description.

    class Training(Config):
        beta: float = Field(0.1, gt=0, description="Strength of the pull to the reference model.")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ccai_core.errors import ConfigError, did_you_mean

C = TypeVar("C", bound="Config")

_LIMITS = (
    "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "pattern",
)  # fmt: skip


class Config(BaseModel):
    """Frozen pydantic model that rejects unknown keys and validates its own defaults."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Give fields their places, and their limits as `allOf`: it means the same to a schema.

        The form of Prefect's UI drops `minimum` and its like beside a type, so that a value out of
        range is found on the way to the server only, and not said next to its field. And fields
        lose their order in a PostgreSQL, which sorts the keys of what it keeps by their length.
        """
        made = handler(core_schema)
        fields = handler.resolve_ref_schema(made).get("properties", {}).values()
        for position, field in enumerate(fields):
            field["position"] = position
            limits = {word: field.pop(word) for word in _LIMITS if word in field}
            if limits:
                field["allOf"] = [*field.get("allOf", []), limits]
        return made


def parse_config(kind: type[C], values: Mapping[str, Any], where: str) -> C:
    """Build `kind` from plain values.

    Raises:
        ConfigError: names `where`, every offending key, and the valid or closest keys.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(explain(error, kind, where)) from None


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, not YAML, or not a mapping; names file and line.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{path}{line}: is not valid YAML ({getattr(error, 'problem', error)})."
        ) from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: must hold key: value lines, found {type(loaded).__name__}.")
    return loaded


def explain(error: ValidationError, kind: type[BaseModel], where: str) -> str:
    """Turn a pydantic error into one line a problem: key, what is wrong, what is valid."""
    lines = []
    for problem in error.errors():
        location = [str(part) for part in problem["loc"]]
        key = ".".join(location) or kind.__name__
        if problem["type"] == "extra_forbidden":
            valid = _fields_at(kind, location[:-1])
            lines.append(f"{where}: unknown key {key!r}.{did_you_mean(location[-1], valid)}")
        else:
            shown = "" if problem["type"] == "missing" else f" (got {problem['input']!r:.80})"
            lines.append(f"{where}: {key}: {problem['msg'].removeprefix('Value error, ')}{shown}.")
    return "\n".join(lines)


def _fields_at(kind: type[BaseModel], location: list[str]) -> list[str]:
    current: Any = kind
    for part in location:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        current = field.annotation
    return list(getattr(current, "model_fields", {}))
