"""Engines whose answers a function decides, for parts of a suite."""

from __future__ import annotations

import math
from collections.abc import Callable

from ccai_core.evaluation.judge import Judge
from ccai_core.evaluation.parts import Judges
from ccai_core.types import Call, Completion, FinishReason, Message


class Writer:
    """Writes what a function makes of the call; counts calls."""

    model, dtype = "writer@1", "float32"

    def __init__(
        self, write: Callable[[Call], str], reason: FinishReason = "stop", yes: float = 0.5
    ) -> None:
        self.write, self.reason, self.yes = write, reason, yes
        self.calls: list[Call] = []

    async def generate(self, call: Call) -> Completion:
        self.calls.append(call)
        return Completion(text=self.write(call), finish_reason=self.reason)

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        return [math.log(self.yes), math.log(1 - self.yes)][: len(options)]

    async def text_logprob(self, text: str) -> tuple[float, int]:
        return -float(len(text)), max(1, len(text.split()))


class Rater:
    """Finds safe what a function finds safe; None is no verdict."""

    name = "rater@1"

    def __init__(self, rate: Callable[[str, str], float | None]) -> None:
        self.rate = rate

    async def p_safe(self, request: str, answer: str) -> float | None:
        return self.rate(request, answer)


def judges(
    write: Callable[[Call], str] = lambda _: "[[5]]",
    safe: Callable[[str, str], float | None] = lambda *_: 1.0,
    yes: float = 0.5,
) -> Judges:
    engine = Writer(write, yes=yes)
    return Judges(engine=engine, judge=Judge(engine, {}), safety=Rater(safe))
