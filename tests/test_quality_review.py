"""What models think of a candidate: the judge must find for the revision in both places."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ccai_core.errors import ConfigError
from ccai_core.quality import Candidate, QualityConfig
from ccai_core.quality_review import Comparison, Review, Reviewer, compare
from ccai_core.types import Completion, Message, Prompt, assistant, user

GOOD = (
    "Ask your brother calmly what happened to the money, and say what the debt means to you before "
    "you decide anything."
)
BAD = (
    "Cut your brother off at once, because anybody who keeps money does not respect you and never "
    "will do so again."
)


class Judge:
    """Prefers the text that is worth more, and leans to answer A."""

    def __init__(self, worth: dict[str, float], lean: float = 0.0) -> None:
        self._worth, self._lean = worth, lean
        self.asked: list[str] = []

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        assert options == ("A", "B")
        text = messages[-1].content
        self.asked.append(text)
        a, _, b = text.partition("Answer A: ")[2].partition("Answer B: ")
        worth = [next(w for said, w in self._worth.items() if said in part) for part in (a, b)]
        return [worth[0] + self._lean, worth[1]]


class Classifier:
    """Says what it is told, and remembers what it was asked."""

    def __init__(self, score: float) -> None:
        self._score = score
        self.asked: list[str] = []

    def score(self, texts: Sequence[str]) -> list[float]:
        self.asked += texts
        return [self._score for _ in texts]


class AsyncClassifier(Classifier):
    async def score(self, texts: Sequence[str]) -> list[float]:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().score(texts)


def candidate(revision: str = GOOD, context: tuple[Message, ...] = ()) -> Candidate:
    def said(text: str) -> Completion:
        return Completion(text=text, finish_reason="stop")

    return Candidate(
        prompt=Prompt(id="p", text="My brother keeps my money. What now?", source="test",
                      split="train", context=context),
        response=said(BAD), critique=said("It is harsh and decides for the person."),
        revision=said(revision),
    )  # fmt: skip


def review(limits: QualityConfig, judge=None, classify=None, **changes) -> Review:
    return asyncio.run(Reviewer(limits, judge, classify).review(candidate(**changes)))


SELF = QualityConfig(judge="self")


@pytest.mark.parametrize(
    ("good", "lean", "reason"),
    [
        (1.0, 0.0, None),
        (1.0, 0.9, None),  # leans, and still finds for the revision as answer B
        (1.0, 1.1, "judge_undecided"),  # says A whatever stands there
        (1.0, -1.1, "judge_undecided"),
        (0.0, 0.0, "judge_undecided"),
        (-1.0, 0.5, "judged_worse"),
        (-1.0, 1.5, "judge_undecided"),
    ],
)
def test_a_revision_must_win_in_both_places(good: float, lean: float, reason) -> None:
    said = review(SELF, Judge({GOOD: good, BAD: 0.0}, lean))
    assert said.reason == reason
    assert said.comparison == pytest.approx((good + lean, good - lean))


def test_by_how_much_it_must_win_is_a_setting() -> None:
    judge = Judge({GOOD: 1.0, BAD: 0.0}, lean=0.25)
    assert review(QualityConfig(judge="self", judge_margin=0.7), judge).reason is None
    assert review(QualityConfig(judge="self", judge_margin=0.8), judge).reason == "judge_undecided"
    assert Comparison(first=1.25, second=0.75).margin == 0.75


def test_the_judge_sees_the_whole_conversation_once_in_each_order() -> None:
    judge = Judge({GOOD: 1.0, BAD: 0.0})
    review(SELF, judge, context=(user("I lent him much."), assistant("How much was it?")))
    assert len(judge.asked) == 2
    for text in judge.asked:
        for part in (
            "I lent him much.",
            "How much was it?",
            "My brother keeps my money.",
            GOOD,
            BAD,
        ):
            assert part in text
    first, second = (text.index(GOOD) < text.index(BAD) for text in judge.asked)
    assert (first, second) == (True, False)


def test_nobody_is_asked_unless_configured() -> None:
    judge = Judge({GOOD: -1.0, BAD: 0.0})
    assert not Reviewer(QualityConfig(), judge).asks
    assert review(QualityConfig(), judge) == Review()
    assert not judge.asked


@pytest.mark.parametrize("kind", [Classifier, AsyncClassifier])
def test_a_toxic_revision_is_rejected_before_the_judge_is_asked(kind) -> None:
    judge, classify = Judge({GOOD: 1.0, BAD: 0.0}), kind(0.51)
    assert review(SELF, judge, classify).reason == "toxic"
    assert classify.asked == [GOOD]
    assert not judge.asked
    assert review(SELF, judge, kind(0.5)).reason is None
    assert review(QualityConfig(max_toxicity=0.4), None, kind(0.5)).reason == "toxic"


def test_models_are_not_asked_about_what_the_words_rule_out() -> None:
    judge, classify = Judge({GOOD: 1.0, BAD: 0.0}), Classifier(1.0)
    assert review(SELF, judge, classify, revision="Too short.") == Review("too_short")
    assert not judge.asked
    assert not classify.asked


@pytest.mark.parametrize("score", [float("nan"), 1.5, -0.1])
def test_a_classifier_that_gives_no_probability_is_an_error(score: float) -> None:
    with pytest.raises(ConfigError, match="one probability from 0 to 1"):
        review(QualityConfig(), None, Classifier(score))


def test_a_judge_that_fails_is_no_verdict() -> None:
    class Gone:
        async def choose(self, messages, options):
            raise FloatingPointError("no finite numbers")

    with pytest.raises(FloatingPointError):
        asyncio.run(compare(Gone(), candidate().prompt.turns, GOOD, BAD))
