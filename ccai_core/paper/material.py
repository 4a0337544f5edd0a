"""What a paper is written from: the results as they lie in files, present or not.

Material(evaluation=read_source("evaluation", file, root, run="3f2a"), ...)
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from ccai_core.comparison.traced_tables import ComparisonSources
from ccai_core.config import Config, explain
from ccai_core.constitution import Constitution
from ccai_core.errors import DataError
from ccai_core.evaluation.results import EvaluationResult
from ccai_core.traced import Source

C = TypeVar("C", bound=Config)


class Figure(NamedTuple):
    """A picture beside the paper."""

    file: str
    """As seen from the paper's folder."""
    caption: str


class Material(NamedTuple):
    """Every source of a paper; one that was not made has no data."""

    pairs: Source
    """`dataset.json` of the pairs."""
    pairs_record: Source
    funnel: Source
    sft: Source
    training: Source
    training_record: Source
    evaluation: Source
    evaluation_record: Source
    review: Source
    """`expert_review.json`."""
    comparison: ComparisonSources | None
    constitution: Constitution | None
    """None where the one that was used is not at hand."""
    figures: dict[str, Figure]
    """By what they show: funnel, curve, forest, radar, scaling."""
    changed: tuple[str, ...]
    """Files that are not as their artifact's record says."""

    @property
    def main(self) -> dict[str, Source]:
        """The results themselves, by what they are called; each may be missing."""
        return {
            each.name: each for each in (self.pairs, self.training, self.evaluation, self.review)
        }

    @property
    def result(self) -> EvaluationResult | None:
        """The evaluation, as far as there is one.

        Raises:
            DataError: it is none.
        """
        return read_as(self.evaluation, EvaluationResult)


def read_as(source: Source, kind: type[C]) -> C | None:
    """Return a source's data as a model; none where there is no such file.

    Raises:
        DataError: the data are of another kind.
    """
    if not source.is_there:
        return None
    try:
        return kind.model_validate(source.data)
    except ValidationError as error:
        raise DataError(explain(error, kind, source.file)) from None
