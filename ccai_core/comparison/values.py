"""Items of several evaluations by model, and two models paired by the items that both have.

columns = Columns(given)
paired = columns.pair("safety.safe_rate", "ccai-7b@1", "ccai-3b@2")
paired.difference(seed=0), paired.p_value(seed=0)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ccai_core.comparison.reading import Given
from ccai_core.evaluation import statistics
from ccai_core.evaluation.results import Interval, ItemValues
from ccai_core.evaluation.statistics import Floats

# How often a model is preferred to another is no property of the one: it has no items.
OF_TWO = "contemplative.preference"
_SAME = 1e-6
_TESTS = {
    "share": "exact McNemar test",
    "mean": "paired sign-flip test",
    "perplexity": "paired sign-flip test over paragraphs",
}


class Column(NamedTuple):
    """What one model's items gave in one measure."""

    kind: str
    values: Mapping[str, float]
    tokens: Mapping[str, int]


class Paired(NamedTuple):
    """Two models on the items that both have; `against` is subtracted."""

    kind: str
    model: tuple[float, ...]
    against: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def test(self) -> str:
        """Name of the test."""
        return _TESTS[self.kind]

    def difference(self, seed: int) -> Interval:
        """Return first minus second with its interval, as evaluations compute it."""
        if self.kind == "share":
            return statistics.share_difference(_true(self.against), _true(self.model))
        if self.kind == "perplexity":
            return statistics.perplexity_difference(self.against, self.model, self.tokens, seed)
        return statistics.mean_difference(self.against, self.model, seed)

    def p_value(self, seed: int) -> float:
        """Return the paired test's p."""
        if self.kind == "share":
            return statistics.mcnemar_exact(_true(self.against), _true(self.model))
        return statistics.sign_flip(self.against, self.model, seed)


class Columns:
    """All items of all models. A model that is in several evaluations counts as first measured."""

    def __init__(self, given: Sequence[Given]) -> None:
        self._of: dict[tuple[str, str], Column] = {}
        self.unsteady: dict[str, list[str]] = {}
        """Models whose items came out differently in another evaluation, and in which measures."""
        for each in given:
            for metric in each.result.metrics:
                if metric.items:
                    baseline, trained = each.result.baseline_model, each.result.trained_model
                    self._add(metric.id, baseline, _column(metric.items, metric.items.baseline))
                    self._add(metric.id, trained, _column(metric.items, metric.items.trained))

    def _add(self, measure: str, model: str, column: Column) -> None:
        before = self._of.setdefault((measure, model), column)
        if any(
            abs(before.values[key] - value) > _SAME
            for key, value in column.values.items()
            if key in before.values
        ):
            self.unsteady.setdefault(model, []).append(measure)

    def column(self, measure: str, model: str) -> Column | None:
        """Return a model's items; none where its evaluation keeps none."""
        return self._of.get((measure, model))

    def cut_differently(self, measure: str) -> bool:
        """Whether the items of a measure have other numbers of tokens for some models."""
        of_it = [column for (name, _), column in self._of.items() if name == measure]
        return bool(of_it) and not same_tokens(of_it, shared(of_it))

    def pair(self, measure: str, model: str, against: str) -> Paired | None:
        """Pair two models; none where fewer than two items are in both, or words are cut apart."""
        first, second = (self.column(measure, each) for each in (model, against))
        if first is None or second is None:
            return None
        keys = shared((first, second))
        # Perplexity is by token: of different tokenizers it is not the same quantity.
        if len(keys) < statistics.LEAST_ITEMS or not same_tokens((first, second), keys):
            return None
        return Paired(
            first.kind,
            tuple(first.values[key] for key in keys),
            tuple(second.values[key] for key in keys),
            tuple(first.tokens[key] for key in keys if first.tokens),
        )


def shared(columns: Sequence[Column]) -> list[str]:
    """Return the keys that all have, in the order of the first."""
    return [key for key in columns[0].values if all(key in each.values for each in columns)]


def same_tokens(columns: Sequence[Column], keys: Sequence[str]) -> bool:
    """Whether all have as many tokens in every item."""
    counts = ([each.tokens.get(key) for each in columns] for key in keys)
    return all(len(set(of_key)) == 1 for of_key in counts)


def of_resampled(columns: Sequence[Column], keys: Sequence[str], weights: Floats) -> Floats:
    """Return each model's measure (a column) for each row of item weights."""
    values = np.asarray([[each.values[key] for key in keys] for each in columns], np.float64)
    if columns[0].kind == "perplexity":
        tokens = np.asarray([columns[0].tokens[key] for key in keys], np.float64)
        perplexity: Floats = np.exp(-(weights @ values.T) / (weights @ tokens)[:, None])
        return perplexity
    means: Floats = (weights @ values.T) / weights.sum(axis=1, keepdims=True)
    return means


def _column(items: ItemValues, values: Sequence[float]) -> Column:
    tokens = dict(zip(items.names, items.tokens, strict=True)) if items.tokens else {}
    return Column(items.kind, dict(zip(items.names, values, strict=True)), tokens)


def _true(values: Sequence[float]) -> list[bool]:
    return [value > 0 for value in values]
