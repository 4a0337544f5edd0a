"""The better answer is preferred whatever the order, and equal answers are left out."""

from __future__ import annotations

import asyncio

from ccai_core.evaluation.counted import silent
from ccai_core.evaluation.head_to_head import head_to_head, head_to_head_table
from ccai_core.evaluation.suite import Answers
from ccai_core.types import Completion, Message, Prompt
from tests.evaluation.planted import Writer

SCENARIOS = [Prompt(id=f"s{i}", text=f"scenario {i}", source="s", split="test") for i in range(12)]


class Judging(Writer):
    """Prefers the answer that says 'kind', and a little what is shown first."""

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        first, second = messages[-1].content.split("Answer B:")
        return [2.0 * ("kind" in first.split("Answer A:")[1]) + 0.5, 2.0 * ("kind" in second)]


def answers(word: str, same: int = 0) -> Answers:
    return Answers(
        model="m@1", dtype="float32", choices={}, paragraphs=(),
        completions={
            p.text: Completion(
                text="alike" if i < same else " ".join([word] * (3 + i % 4)), finish_reason="stop"
            )
            for i, p in enumerate(SCENARIOS)
        },
    )  # fmt: skip


def test_the_trained_models_better_answers_are_preferred() -> None:
    engine = Judging(lambda _: "")
    asked = head_to_head(engine, SCENARIOS, answers("hard", 2), answers("kind", 2), silent)
    duels = asyncio.run(asked)
    assert len(duels) == 10
    table = head_to_head_table(duels, len(SCENARIOS), seed=0)
    assert table is not None
    rows = {row[0]: row[1:] for row in table.rows}
    preferred, low = rows["Trained model preferred"][:2]
    assert isinstance(preferred, float)
    assert isinstance(low, float)
    assert preferred >= low > 0.5
    assert rows["Both orders agree"][0] == 1.0
    first = rows["Preference for what is shown first"][0]
    assert isinstance(first, float)
    assert first > 0.5
    assert "2 of 12 scenarios are left out" in table.note


def test_nothing_is_said_of_models_that_answer_alike() -> None:
    engine = Judging(lambda _: "")
    duels = asyncio.run(head_to_head(engine, SCENARIOS, answers("a"), answers("a"), silent))
    assert head_to_head_table(duels, len(SCENARIOS), seed=0) is None
