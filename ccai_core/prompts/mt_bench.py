"""MT-Bench: 80 questions in eight categories, for evaluation only.

reading = read_prompts(read_table(path), mt_bench_prompts("mt-bench"))
"""

from __future__ import annotations

from collections.abc import Collection

from ccai_core.prompts.reading import Make, RowError, make_prompt
from ccai_core.prompts.rows import Row
from ccai_core.types import Prompt


def is_mt_bench(columns: Collection[str]) -> bool:
    """Whether a file's columns are MT-Bench's."""
    return {"question_id", "turns"} <= set(columns)


def mt_bench_prompts(source: str) -> Make:
    """Return what makes a Prompt of a question's first turn.

    A second turn asks about the model's own answer to the first, so it is no prompt by itself.
    """

    def make(row: Row) -> Prompt:
        turns = row.values.get("turns")
        if not isinstance(turns, list) or not turns:
            raise RowError(row.where, "no text", "'turns' must be a list of texts.")
        category = str(row.values.get("category") or "").strip()
        return make_prompt(
            turns[0],
            row.where,
            id=f"{source}-{row.values.get('question_id') or row.number}",
            source=source,
            tags=(category,) if category else (),
            # A published benchmark is on the test side whatever its words are.
            split="test",
        )

    return make
