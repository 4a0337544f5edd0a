"""The pairs of a release: with their texts where their licence lets them be passed on, else as ids.

counts = write_training_data(parts.pairs, parts.info, Path("release/training_data.jsonl"))
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ccai_core.dataset_files import text_hash
from ccai_core.dataset_info import UNKNOWN, DatasetInfo
from ccai_core.dataset_rows import read_dataset_rows, row_as
from ccai_core.files import write_whole
from ccai_core.types import PreferencePair


def write_training_data(pairs: Path, info: DatasetInfo, target: Path) -> dict[str, int]:
    """Write the pairs, and return how many are whole and how many are ids only."""
    closed = {
        source.name for source in info.sources if source.restricted or source.licence == UNKNOWN
    }
    known = {source.name for source in info.sources}
    counts: Counter[str] = Counter()

    def lines() -> Iterator[str]:
        for row in read_dataset_rows(pairs, "pairs"):
            pair = row_as(PreferencePair, row.values, row.where)
            # A source that the data set says nothing of has no licence either.
            hidden = pair.source in closed or pair.source not in known
            counts["ids only" if hidden else "whole"] += 1
            values = _named(pair) if hidden else pair.model_dump()
            yield json.dumps(values, ensure_ascii=False) + "\n"

    write_whole(target, lines())
    return dict(counts)


def _named(pair: PreferencePair) -> dict[str, Any]:
    """Return what may be said of a pair without a word of its texts."""
    return {
        "prompt_id": pair.prompt_id,
        "prompt_sha256": text_hash(pair.prompt[-1].content),
        "source": pair.source,
        "hazard": pair.hazard,
        "principle": pair.principle,
    }
