"""What the Prefect UI offers: every flow as a deployment, and every preset of the whole way.

for offer in all_offers():
    print(offer.full_name, offer.values)
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple, cast, get_type_hints

from prefect.flows import Flow

from ccai_core.config import Config
from flows.cli import preset_about, preset_names, preset_values

_PLAIN = "default"
# The one flow whose settings presets are written for, but for one preset.
_WHOLE_WAY, _VALIDATION = "poc", "validation"
_NIGHTLY = "nightly"
_TAGS: dict[str, tuple[str, ...]] = {
    "poc": ("data", "training", "evaluation"),
    "prepare_data": ("data",),
    "preference_data": ("data",),
    "training": ("training",),
    "sweep": ("training",),
    "evaluation": ("evaluation",),
    _VALIDATION: ("evaluation", "validation"),
    "nightly": ("evaluation", "nightly"),
    "promote": ("registry",),
}
"""Module, which is also the flow's name in it, and the tags that its deployments are found by."""


class Offer(NamedTuple):
    """One deployment: a flow with the values that its form begins with."""

    flow: Flow[Any, Any]
    entrypoint: str
    """Where a process finds the flow, e.g. `flows.poc.poc`."""
    name: str
    description: str
    values: dict[str, Any]
    tags: tuple[str, ...]
    nightly: bool = False
    """Whether it also runs by itself, as the settings of `flows.serve` say."""

    @property
    def full_name(self) -> str:
        """What Prefect calls it: flow and deployment."""
        return f"{self.flow.name}/{self.name}"


def all_offers() -> list[Offer]:
    """Return every deployment, in the order in which they are read."""
    return [_offer(module, name) for module in _TAGS for name in _names(module)]


def _names(module: str) -> list[str]:
    if module == _WHOLE_WAY:
        return [name for name in preset_names() if name != _VALIDATION]
    return [_PLAIN, _VALIDATION] if module == _VALIDATION else [_PLAIN]


def settings_of(flow: Flow[Any, Any]) -> type[Config]:
    """Return the settings that a flow takes."""
    return cast("type[Config]", get_type_hints(flow.fn)["config"])


def _offer(module: str, name: str) -> Offer:
    flow = cast("Flow[Any, Any]", getattr(import_module(f"flows.{module}"), module))
    preset = name if name != _PLAIN else ""
    about = [flow.description or "", preset_about(preset) if preset else ""]
    command = f"python -m flows.{module}" + (f" --preset {preset}" if preset else "")
    return Offer(
        flow=flow,
        entrypoint=f"flows.{module}.{module}",
        name=name,
        description="\n\n".join(filter(None, [*about, f"On a command line: `{command}`"])),
        values=preset_values(settings_of(flow), preset) if preset else {},
        tags=("ccai", *_TAGS[module]),
        nightly=module == _NIGHTLY,
    )
