"""What an evaluation found, as data: the JSON that reports, MLflow and later comparisons read.

EvaluationResult.model_validate_json(path.read_text())
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ccai_core.config import Config

SCHEMA_VERSION = 4
Group = Literal["safety", "contemplative", "capability", "helpfulness", "robustness", "cooperation"]
Unit = Literal["share", "probability", "perplexity", "score", "points"]


class Interval(Config):
    """An estimate with its 95% interval."""

    estimate: float = Field(description="Point estimate.")
    low: float = Field(description="Lower end of the 95% interval.")
    high: float = Field(description="Upper end of the 95% interval.")


class ItemValues(Config):
    """What every item gave, so that models of several evaluations can be paired by item."""

    kind: Literal["share", "mean", "perplexity"] = Field(
        description="How the items make the measure: count of ones, mean, exp(-nats / tokens)."
    )
    # Not `keys`: Prefect looks into results with dict(), which calls what has that name.
    names: tuple[str, ...] = Field(description="Name of each item, or the hash of its prompt.")
    baseline: tuple[float, ...] = Field(description="Of the model before training, by item.")
    trained: tuple[float, ...] = Field(description="Of the model after training, by item.")
    tokens: tuple[int, ...] = Field((), description="Of each item; for perplexity only.")

    @model_validator(mode="after")
    def _fits(self) -> ItemValues:
        lengths = {len(self.names), len(self.baseline), len(self.trained)}
        if len(lengths) > 1 or (self.kind == "perplexity" and len(self.tokens) != len(self.names)):
            raise ValueError("every item needs a name and the values of both models")
        return self


class Metric(Config):
    """One measure of both models on the same items, and their difference."""

    id: str = Field(description="Stable key, e.g. 'safety.safe_rate' or 'capability.arithmetic'.")
    title: str = Field(description="Human name.")
    group: Group = Field(description="Which question it answers.")
    description: str = Field(description="One sentence: what was measured and how.")
    unit: Unit = Field(description="Scale of the values.")
    higher_is_better: bool = Field(description="False for perplexity and attack success.")
    baseline: Interval = Field(description="The model before training.")
    trained: Interval = Field(description="The model after training.")
    difference: Interval = Field(description="Trained minus baseline, paired by item.")
    p_value: float | None = Field(None, description="Two-sided paired test, where there is one.")
    p_corrected: float | None = Field(
        None, description="The same, corrected for the number of measures (Holm)."
    )
    test: str = Field("", description="Name of that test.")
    n: int = Field(ge=0, description="Items that counted, in both models.")
    excluded: dict[str, int] = Field(
        default_factory=dict, description="Items that did not count, by reason."
    )
    judged: bool = Field(description="Whether a (weak) judge model stands between text and number.")
    items: ItemValues | None = Field(
        None, description="By item; none where values say nothing without the other model."
    )


class Table(Config):
    """Numbers that are no paired measure: grades, categories, conditions, criteria."""

    id: str = Field(description="Stable key, e.g. 'safety.grades.trained'.")
    title: str = Field(description="Heading.")
    columns: tuple[str, ...] = Field(min_length=1, description="Names of the columns.")
    rows: tuple[tuple[str | float | None, ...], ...] = Field(
        description="A value a column; none where there is no number."
    )
    note: str = Field("", description="What must be read with it.")

    @model_validator(mode="after")
    def _fits(self) -> Table:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"every row of '{self.id}' needs {len(self.columns)} values")
        return self


class Calibration(Config):
    """How well the judge does on items whose answer is known."""

    task: str = Field(description="What was asked of the judge.")
    accuracy: Interval = Field(description="Share right, exact binomial interval.")
    n: int = Field(ge=0, description="Labelled items.")
    chance: float = Field(description="What guessing would score.")


class JudgeCard(Config):
    """Who judged, how, and how far it can be trusted."""

    model: str = Field(description="Model identity, name@revision.")
    method: str = Field(description="E.g. 'answer-token log-probability of Yes against No'.")
    calibrations: tuple[Calibration, ...] = Field(description="Measured on shipped labelled items.")
    weak: bool = Field(description="A calibration interval includes chance, or accuracy < 0.8.")
    complete: bool = Field(True, description="All that it is asked has labelled answers.")
    labelled: dict[str, tuple[tuple[float, float], ...]] = Field(
        default_factory=dict,
        description="What was asked: the scores of the bad and the good answer, by labelled pair.",
    )
    panel: tuple[JudgeCard, ...] = Field(
        (), description="Each judge by itself, where several judged together."
    )


class Example(Config):
    """Answers of both models to one prompt, for people to read."""

    group: Group = Field(description="Which part of the suite.")
    label: str = Field(description="Principle or hazard.")
    prompt: str = Field(description="The prompt; may be harmful by design.")
    baseline: str = Field(description="Answer before training.")
    trained: str = Field(description="Answer after training.")
    baseline_score: float | None = Field(description="The judge's score.")
    trained_score: float | None = Field(description="The judge's score.")


class EvaluationResult(Config):
    """A whole evaluation: baseline against trained."""

    schema_version: int = Field(SCHEMA_VERSION, description="Of this file's layout.")
    suite: str = Field(description="Name of the suite.")
    baseline_model: str = Field(description="Identity of the model before training.")
    trained_model: str = Field(description="Identity of the model after training.")
    judge: JudgeCard = Field(description="The judge.")
    metrics: tuple[Metric, ...] = Field(description="All measures.")
    tables: tuple[Table, ...] = Field((), description="Grades, categories, conditions.")
    examples: tuple[Example, ...] = Field((), description="Before and after.")
    notes: tuple[str, ...] = Field((), description="What a reader must know, e.g. fallbacks.")
    asked: dict[str, Any] = Field(
        default_factory=dict,
        description="What was asked, how, and of which judge; alike in results to be compared.",
    )
    parameters: dict[str, int] = Field(
        default_factory=dict, description="Weights of each model, by its identity."
    )
    seconds: float = Field(0.0, ge=0, description="Wall time.")
