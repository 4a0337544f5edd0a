"""What a sweep may change: a YAML file that names training settings and their ranges.

    learning_rate: {low: 5.0e-7, high: 1.0e-5, log: true}
    beta: {choices: [0.05, 0.1, 0.3]}
    epochs: {low: 1, high: 3}

Everything is checked before the first trial: names, limits, and that training takes each value.

    space = read_space("dpo")
    config = space.config(TrainingConfig(), {"learning_rate": 2e-6, "beta": 0.1})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Self, get_args, get_origin

from pydantic import Field, ValidationError, model_validator

from ccai_core.config import Config, explain, load_yaml
from ccai_core.errors import ConfigError, did_you_mean
from ccai_core.training_config import LAYOUT, TrainingConfig

# What these say is heard only beside another setting of that value.
_ONLY_WITH = {
    "lora_rank": ("method", "lora"), "lora_alpha": ("method", "lora"),
    "lora_dropout": ("method", "lora"), "label_noise": ("loss", "robust"),
    "simpo_gamma": ("loss", "simpo"),
}  # fmt: skip
# These say how a run is measured or stored, not how it learns.
_NOT_LEARNING = LAYOUT | {
    "save_steps", "keep_checkpoints", "log_steps", "eval_steps", "validation_fraction", "measure",
    "patience", "max_length", "max_memory_mb", "save_dtype", "over_length", "precision", "seed",
}  # fmt: skip
_SUFFIXES = {".yaml", ".yml"}
_TRIED = 1000


class Dimension(Config):
    """The values that one setting may take: a range, or a list."""

    low: float | None = Field(None, description="Smallest value of a range.")
    high: float | None = Field(None, description="Largest value of a range.")
    log: bool = Field(False, description="Whether the range is searched by orders of magnitude.")
    step: float | None = Field(None, gt=0, description="Distance between the values of a range.")
    choices: tuple[str | int | float | bool | None, ...] = Field(
        (), description="The values themselves, instead of a range."
    )

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        ends = (self.low, self.high)
        if self.choices:
            if ends != (None, None) or self.log or self.step:
                raise ValueError("choices stand alone: leave out low, high, log and step")
            if len(set(map(repr, self.choices))) < 2:
                raise ValueError("choices needs two different values at least")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0, not {self.low:g}")
        if self.log and self.step:
            raise ValueError("log and step do not go together: leave out one")
        if self.step:
            steps = (self.high - self.low) / self.step
            if steps < 0.5 or abs(steps - round(steps)) > 1e-6:
                raise ValueError(
                    f"steps of {self.step:g} from {self.low:g} do not come to {self.high:g}"
                )
        return self

    @property
    def words(self) -> str:
        """The values for a reader: "5e-07 to 1e-05 (log)"."""
        if self.choices:
            return ", ".join(map(str, self.choices))
        how = " (log)" if self.log else (f" by {self.step:g}" if self.step else "")
        return f"{self.low:g} to {self.high:g}{how}"


class SearchSpace(Config):
    """Settings of training and the values that a sweep may give them."""

    source: str = Field(description="Where it was read from.")
    dimensions: dict[str, Dimension] = Field(description="The values of each setting.")

    def is_whole(self, name: str) -> bool:
        """Whether a range is one of whole numbers."""
        return int in _types(name) and float not in _types(name)

    def config(self, base: TrainingConfig, values: Mapping[str, Any]) -> TrainingConfig:
        """Return the settings of one trial.

        Raises:
            ConfigError: together with `base` they are none that training takes.
        """
        try:
            return TrainingConfig.model_validate({**base.model_dump(), **values})
        except ValidationError as error:
            raise ConfigError(explain(error, TrainingConfig, f"{self.source}: {values}")) from None

    def check(self, base: TrainingConfig) -> None:
        """Pass if training takes the values of each setting beside `base`, and hears what they say.

        Of a range of numbers its ends are tried, of whole numbers the first thousand.

        Raises:
            ConfigError: names the setting and the value.
        """
        for name, dimension in self.dimensions.items():
            self._check_heard(name, base)
            for value in dimension.choices or self._of_range(name, dimension):
                self.config(base, {name: value})

    def _of_range(self, name: str, dimension: Dimension) -> Iterable[float]:
        low, high = dimension.low or 0.0, dimension.high or 0.0
        if not self.is_whole(name):
            return low, high
        for value in (low, high, dimension.step or 1.0):
            if not value.is_integer():
                raise ConfigError(f"{self.source}: {name}: {value:g} must be a whole number.")
        # Some are refused in the middle: accumulation that processes cannot share equally.
        every = range(int(low), int(high) + 1, int(dimension.step or 1))
        return *every[:_TRIED], int(high)

    def _check_heard(self, name: str, base: TrainingConfig) -> None:
        other, wanted = _ONLY_WITH.get(name, (name, None))
        if wanted is None:
            return
        values = self.dimensions[other].choices if other in self.dimensions else ()
        if wanted not in (values or (getattr(base, other),)):
            raise ConfigError(
                f"{self.source}: {name} means nothing with {other} {getattr(base, other)}: set "
                f"{other} to {wanted}, or leave {name} out."
            )


def shipped_spaces() -> list[str]:
    """Return the names of the spaces that are shipped."""
    folder = files("ccai_core.resources") / "spaces"
    return sorted(each.name.removesuffix(".yaml") for each in folder.iterdir())


def read_space(name: str) -> SearchSpace:
    """Read a search space by its shipped name or from a YAML file.

    Raises:
        ConfigError: there is none, or it names what cannot be searched; says file and key.
    """
    if Path(name).suffix in _SUFFIXES:
        return _parsed(load_yaml(Path(name).expanduser()), name)
    if name not in shipped_spaces():
        raise ConfigError(
            f"--space {name}: unknown.{did_you_mean(name, shipped_spaces())} A YAML file works too."
        )
    file = Path(str(files("ccai_core.resources") / "spaces" / f"{name}.yaml"))
    return _parsed(load_yaml(file), name)


def _parsed(values: Mapping[str, Any], source: str) -> SearchSpace:
    if not values:
        raise ConfigError(f"{source}: names no setting. Valid: {', '.join(_searchable())}.")
    # YAML reads some words as something else: `on`, a number.
    dimensions = {str(name): _dimension(str(name), said, source) for name, said in values.items()}
    return SearchSpace(source=source, dimensions=dimensions)


def _dimension(name: str, said: Any, source: str) -> Dimension:
    if name not in _searchable():
        raise ConfigError(
            f"{source}: {name} is nothing to search.{did_you_mean(name, _searchable())}"
        )
    if not isinstance(said, Mapping):
        raise ConfigError(f"{source}: {name}: give {{low: ..., high: ...}} or {{choices: [...]}}.")
    try:
        dimension = Dimension.model_validate(said)
    except ValidationError as error:
        raise ConfigError(explain(error, Dimension, f"{source}: {name}")) from None
    if not dimension.choices and not {int, float} & _types(name):
        raise ConfigError(f"{source}: {name} has no numbers in between: give choices.")
    return dimension


def _searchable() -> list[str]:
    return sorted(TrainingConfig.model_fields.keys() - _NOT_LEARNING)


def _types(name: str) -> set[Any]:
    """Return the plain types that a setting's values have."""
    annotation = TrainingConfig.model_fields[name].annotation
    found = {annotation, *get_args(annotation)} if get_origin(annotation) else {annotation}
    return found - {bool}
