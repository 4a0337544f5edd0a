"""What a comparison found, as data: the JSON that pages, analyses and papers are written from.

Comparison.model_validate_json(Path("comparison.json").read_text())
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ccai_core.config import Config
from ccai_core.evaluation.results import Group, Interval, JudgeCard, Unit

SCHEMA_VERSION = 1
Series = Literal["before training", "after training", "difference"]


class Origin(Config):
    """An evaluation that went in, and how to get at it."""

    name: str = Field(description="Name of the artifact or file.")
    file: str = Field(description="The evaluation's JSON, as seen from the comparison's folder.")
    sha256: str = Field(description="Hash of that file's bytes.")
    baseline: str = Field(description="Identity of the model before training.")
    trained: str = Field(description="Identity of the model after training.")
    run: str | None = Field(None, description="MLflow run that made it; none where none is known.")
    experiment: str | None = Field(None, description="MLflow experiment of that run.")
    tracking: str | None = Field(None, description="MLflow store of that run.")
    command: str | None = Field(None, description="Command that makes it again, if it is known.")


class Model(Config):
    """One of the models compared."""

    identity: str = Field(description="name@revision.")
    label: str = Field(description="Short and unique within the comparison.")
    roles: tuple[Literal["baseline", "trained"], ...] = Field(description="In the evaluations.")
    parameters: int | None = Field(description="Number of weights; none where it is not known.")


class Level(Config):
    """One model in one measure."""

    model: str = Field(description="Label.")
    value: Interval = Field(description="With its 95% interval.")
    n: int = Field(ge=0, description="Items that counted.")
    origin: int = Field(ge=0, description="Position of the evaluation in `origins`.")
    pointer: str = Field(description="Where the value is in that evaluation (JSON pointer).")


class Difference(Config):
    """Two models in one measure, paired by item."""

    model: str = Field(description="Label of the first.")
    against: str = Field(description="Label of the second.")
    difference: Interval = Field(description="First minus second, with its 95% interval.")
    p_value: float | None = Field(description="Two-sided paired test.")
    p_corrected: float | None = Field(
        description="The same, corrected for the number of tests of this kind (Holm)."
    )
    test: str = Field(description="Name of that test.")
    n: int = Field(ge=0, description="Items that both have.")
    own: bool = Field(description="Whether the second is the model that the first was made from.")
    origin: int | None = Field(description="Evaluation that has it; none: computed here, by item.")
    pointer: str = Field("", description="Where it is in that evaluation (JSON pointer).")


class Point(Config):
    """One size of a trend."""

    model: str = Field(description="Label.")
    parameters: int = Field(description="Weights.")
    value: Interval = Field(description="What was measured, as in the levels or differences.")


class Band(Config):
    """The fitted line at one size."""

    parameters: float = Field(description="Weights.")
    value: Interval = Field(description="The line, with the 95% interval of its bootstrap.")


class Trend(Config):
    """A measure over the logarithm of the models' size."""

    series: Series = Field(description="Which models, or what of them.")
    points: tuple[Point, ...] = Field(description="By size.")
    slope: Interval = Field(description="Change for ten times as many weights.")
    line: tuple[Band, ...] = Field(description="From the smallest to the largest size.")
    n: int = Field(description="Items that all sizes have, which were drawn again and again.")
    resampled: Literal["items", "intervals"] = Field(
        description="What was drawn: items, or (where no items are kept) values from intervals."
    )
    worst_miss: float = Field(
        description="Largest distance of a size from the line through the others."
    )


class Measure(Config):
    """One measure of all models."""

    id: str = Field(description="As in the evaluations.")
    title: str = Field(description="Human name.")
    group: Group = Field(description="Which question it answers.")
    description: str = Field(description="What was measured and how.")
    unit: Unit = Field(description="Scale of the values.")
    higher_is_better: bool = Field(description="False for perplexity.")
    judged: bool = Field(description="Whether a judge model stands between text and number.")
    levels: tuple[Level, ...] = Field(description="A line a model.")
    differences: tuple[Difference, ...] = Field(description="A line two models.")
    trends: tuple[Trend, ...] = Field((), description="Over size, from three sizes on.")
    missing: tuple[str, ...] = Field((), description="Labels of models that do not have it.")


class Comparison(Config):
    """Everything that a comparison shows."""

    schema_version: int = Field(SCHEMA_VERSION, description="Of this file's layout.")
    created: str = Field(description="When, UTC, ISO 8601.")
    command: str = Field(description="The command that makes it again.")
    suite: str = Field(description="Name of the suite.")
    judge: JudgeCard | None = Field(description="The judge of all; none: only unjudged measures.")
    origins: tuple[Origin, ...] = Field(description="The evaluations, in the order given.")
    models: tuple[Model, ...] = Field(description="Baselines first, then what was trained.")
    measures: tuple[Measure, ...] = Field(description="In the order of the suite.")
    notes: tuple[str, ...] = Field((), description="What must be read with the numbers.")
