"""The shipped capability items as data sets, for the tasks beside this file."""

from __future__ import annotations

from typing import Any

from datasets import Dataset, DatasetDict

from ccai_core.evaluation.capability import capability_items, stem


def _of(task: str) -> DatasetDict:
    rows = [
        {"id": i.id, "stem": stem(i), "options": list(i.options), "answer": i.answer}
        for i in capability_items()
        if i.task == task
    ]
    return DatasetDict({"test": Dataset.from_list(rows)})


def arithmetic(**_: Any) -> DatasetDict:
    """Sums, differences, products."""
    return _of("arithmetic")


def commonsense(**_: Any) -> DatasetDict:
    """Everyday knowledge."""
    return _of("commonsense")


def instructions(**_: Any) -> DatasetDict:
    """Following instructions."""
    return _of("instructions")
