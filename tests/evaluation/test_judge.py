"""The judge's arithmetic on planted log-probabilities, and what its card says of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest

from ccai_core.constitution import Application, Constitution, Principle
from ccai_core.evaluation.judge import (
    SAFETY_QUESTION,
    Judge,
    LabelledReply,
    calibrate,
    judge_messages,
    labelled_replies,
    sigmoid,
    with_guard,
)
from ccai_core.evaluation.results import JudgeCard
from ccai_core.types import Message


class Planted:
    """Gives Yes the log-odds that a function makes of (answer, question text)."""

    def __init__(self, odds: Callable[[str, str], float]) -> None:
        self.odds = odds

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        assert options == ("Yes", "No")
        return [self.odds(messages[-2].content, messages[-1].content) - 1.0, -1.0]


def principle(name: str, applications: int) -> Principle:
    return Principle(
        id=name,
        name=name,
        critique="c",
        revision="r",
        criteria=(f"Is it {name}?", f"Is it very {name}?"),
        applications=tuple(
            Application(situation=f"{name} {i}", poor=f"bad {i}", better=f"good {i}")
            for i in range(applications)
        ),
    )


def constitution(applications: int = 4) -> Constitution:
    return Constitution(
        name="c", principles=(principle("calm", applications), principle("kind", applications))
    )


REPLIES = [
    LabelledReply(id=f"{i}{word}", request=f"r{i}", reply=f"{word} {i}", safe=word == "good")
    for i in range(20)
    for word in ("good", "bad")
]


def test_score_is_the_share_of_yes() -> None:
    judge = Judge(Planted(lambda *_: math.log(3)), {})
    assert asyncio.run(judge.score("q", "a", "Good?")) == pytest.approx(0.75)
    leaning = Judge(judge.engine, {"Good?": math.log(3)})
    assert asyncio.run(leaning.score("q", "a", "Good?")) == pytest.approx(0.5)
    assert asyncio.run(leaning.mean_score("q", "a", ["Good?", "Nice?"])) == pytest.approx(0.625)


def test_sigmoid_at_the_ends() -> None:
    assert sigmoid(-1000) == 0.0
    assert sigmoid(1000) == 1.0


def test_questions_about_one_answer_share_their_beginning() -> None:
    first, second = (judge_messages("q", "a", question) for question in ("One?", "Two?"))
    assert first[:-1] == second[:-1]
    assert "One?" in first[-1].content


def test_a_good_judge_with_a_strong_lean_is_strong() -> None:
    engine = Planted(lambda answer, _: 5.0 + ("good" in answer))
    judge, card = asyncio.run(calibrate(engine, "m@1", constitution(10), REPLIES))
    assert not card.weak
    assert [c.accuracy.estimate for c in card.calibrations] == [1.0] * 4
    assert [c.n for c in card.calibrations] == [20, 40, 20, 40]
    assert judge.leans[SAFETY_QUESTION] == pytest.approx(5.5)
    assert judge.leans["Is it calm?"] == pytest.approx(5.5)
    assert asyncio.run(judge.score("r", "bad", SAFETY_QUESTION)) < 0.5
    assert card.model == "m@1"


def test_a_judge_that_sees_nothing_is_weak() -> None:
    _, card = asyncio.run(calibrate(Planted(lambda *_: 2.0), "m@1", constitution(), REPLIES))
    assert card.weak
    assert all(c.accuracy.estimate == 0 for c in card.calibrations), "a tie is not right"


def test_a_judge_that_is_blind_for_safety_only_is_weak() -> None:
    def odds(answer: str, question: str) -> float:
        noise = (hash_of(answer) % 7) / 10
        return noise if SAFETY_QUESTION in question else 1.0 + ("good" in answer)

    _, card = asyncio.run(calibrate(Planted(odds), "m@1", constitution(10), REPLIES))
    assert card.weak
    right = [c.accuracy.estimate for c in card.calibrations]
    assert right[:2] == [1.0, 1.0]
    assert max(right[2:]) < 0.8


def hash_of(text: str) -> int:
    return sum(ord(c) * (i + 3) for i, c in enumerate(text))


def test_accuracy_uses_leans_estimated_without_the_item() -> None:
    # Of a single situation the lean can only be 0: had it seen the item, it would be 2.
    def odds(answer: str, _: str) -> float:
        return {"good 0": 3.0, "bad 0": 1.0}.get(answer, 0.0)

    judge, card = asyncio.run(calibrate(Planted(odds), "m@1", constitution(1), REPLIES))
    assert judge.leans["Is it calm?"] == pytest.approx(2.0)
    assert card.calibrations[0].accuracy.estimate == 1.0
    assert card.calibrations[1].accuracy.estimate == 0.5, "'bad 0' is on the wrong side"


def test_without_examples_the_lean_is_that_on_an_empty_answer_and_the_judge_is_weak() -> None:
    engine = Planted(lambda answer, _: 4.0 if answer == "N/A" else 5.0 + ("good" in answer))
    judge, card = asyncio.run(calibrate(engine, "m@1", constitution(0), REPLIES))
    assert judge.leans["Is it calm?"] == 4.0
    assert card.weak
    assert all("Safety" in c.task for c in card.calibrations)


def test_shipped_replies_are_balanced_and_of_like_length() -> None:
    replies = labelled_replies()
    assert len(replies) >= 40
    assert len({r.id for r in replies}) == len(replies)
    safe = {r.request for r in replies if r.safe}
    unsafe = {r.request for r in replies if not r.safe}
    assert safe == unsafe
    assert len(safe) == len(replies) / 2
    words = [
        sum(len(r.reply.split()) for r in replies if r.safe is side) / len(safe)
        for side in (True, False)
    ]
    assert 0.8 < words[0] / words[1] < 1.25


def test_a_guard_takes_the_place_of_the_safety_question_and_is_measured_itself() -> None:
    class Guarding:
        name = "guard@1"

        def __init__(self, blind: bool) -> None:
            self.blind = blind

        async def p_safe(self, request: str, answer: str) -> float | None:
            if self.blind:
                return None
            return 0.9 if "good" in answer else 0.2

    async def cards() -> list[JudgeCard]:
        engine = Planted(lambda answer, _: 5.0 + ("good" in answer))
        _, card = await calibrate(engine, "m@1", constitution(10), REPLIES)
        return [await with_guard(card, Guarding(blind), REPLIES) for blind in (False, True)]

    good, blind = asyncio.run(cards())
    assert [c.task.split(":")[0] for c in good.calibrations] == (
        ["Contemplative questions"] * 2 + ["Safety by guard@1"] * 2
    )
    assert not good.weak
    assert blind.weak, "a guard without verdicts is right in nothing"
    assert blind.calibrations[-1].accuracy.estimate == 0
    assert "safety by guard@1" in good.method
