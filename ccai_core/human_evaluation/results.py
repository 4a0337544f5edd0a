"""What an expert review found, as data: agreement, win rates, ratings, and how the judge compares.

result = evaluate_reviews(collect_reviews(paths, key), key, seed=0)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

from pydantic import Field

from ccai_core.config import Config
from ccai_core.evaluation.results import Interval
from ccai_core.evaluation.statistics import share_interval
from ccai_core.human_evaluation.clusters import Clustered, Draws, difference_of, mean_of
from ccai_core.human_evaluation.collect import (
    Comment,
    Preference,
    Rating,
    ReviewerCard,
    Reviews,
)
from ccai_core.human_evaluation.judge import JudgeAgreement, judge_agreement
from ccai_core.human_evaluation.key import ReviewKey
from ccai_core.human_evaluation.questions import HIGHEST, LOWEST, QUESTIONS
from ccai_core.judges.agreement import krippendorff_interval

PREFERENCE = "preference"
# Below so many the draws of reviewers are few, and intervals by them rough.
FEW_REVIEWERS = 5
# Who judged what, and how.
Judged = dict[tuple[str, tuple[str, ...]], float]
_RATING_SPAN = (float(LOWEST), float(HIGHEST))


class Agreement(Config):
    """How far reviewers agree in one question, beyond chance."""

    question: str = Field(description="Its id, or 'preference'.")
    alpha: Interval | None = Field(
        description="Krippendorff's ordinal alpha; none where nothing can be compared."
    )
    shared: int = Field(description="Things that two reviewers or more judged.")
    judgements: int = Field(description="Judgements in all.")


class WinRate(Config):
    """How often one model's answer was preferred to another's."""

    model: str = Field(description="The one whose rate it is.")
    other: str = Field(description="The one it was compared with.")
    rate: Interval = Field(description="Wins, and half of the ties, of all comparisons.")
    wins: int = Field(description="Times its answer was the better one.")
    ties: int = Field(description="Times both were about equal.")
    losses: int = Field(description="Times the other's was.")
    prompts: int = Field(description="Prompts compared on.")


class MeanRating(Config):
    """What reviewers gave one model in one question."""

    question: str = Field(description="Its id.")
    model: str = Field(description="Whose answers.")
    mean: Interval = Field(description="From 1 to 5.")
    n: int = Field(description="Ratings.")


class RatingDifference(Config):
    """One model's mean rating minus another's."""

    question: str = Field(description="Its id.")
    model: str = Field(description="The first.")
    other: str = Field(description="The second.")
    difference: Interval = Field(description="First minus second.")


class HumanEvaluation(Config):
    """A whole expert review."""

    package: str = Field(description="Id of the package.")
    created: str = Field(description="When the package was made, UTC.")
    models: tuple[str, ...] = Field(description="All models compared.")
    prompts: dict[str, str] = Field(description="Number to what the prompt is about.")
    agreement: tuple[Agreement, ...] = Field(description="A line a question.")
    win_rates: tuple[WinRate, ...] = Field(description="A line two models.")
    ratings: tuple[MeanRating, ...] = Field(description="A line a question and model.")
    differences: tuple[RatingDifference, ...] = Field(description="A line a question, two models.")
    left: Interval | None = Field(
        description="Share of clear preferences that went to the left answer; 0.5 is no leaning."
    )
    judge: JudgeAgreement | None = Field(description="Where the answers came with scores.")
    comments: tuple[Comment, ...] = Field(description="Free text, by prompt.")
    reviewers: tuple[ReviewerCard, ...] = Field(description="A line a page that came back.")
    missing: tuple[str, ...] = Field(description="Pages that did not come back.")
    rejected: dict[str, str] = Field(description="Files that were left out, with the reason.")
    excluded: dict[str, int] = Field(description="Prompts that were not shown, by reason.")
    notes: tuple[str, ...] = Field(description="What must be read with the numbers.")

    def metrics(self) -> dict[str, float]:
        """Return the numbers as a tracking server wants them."""
        found: dict[str, float] = {
            "reviewers": sum(card.counted for card in self.reviewers),
            "preferences": sum(w.wins + w.ties + w.losses for w in self.win_rates),
            "ratings": sum(rating.n for rating in self.ratings),
        }
        for line in self.agreement:
            if line.alpha:
                found |= _numbers(f"alpha.{line.question}", line.alpha)
        for win in self.win_rates:
            found |= _numbers(f"win_rate.{win.model}.over.{win.other}", win.rate)
        for rating in self.ratings:
            found[f"rating.{rating.question}.{rating.model}"] = rating.mean.estimate
        if self.judge and self.judge.same:
            found |= _numbers("judge.same_preference", self.judge.same)
        return found


def evaluate_reviews(reviews: Reviews, key: ReviewKey, seed: int = 0) -> HumanEvaluation:
    """Compute everything that the reviewers' answers can say."""
    people = [card.id for card in reviews.reviewers if card.counted]
    draws = Draws(people, list(key.prompts), seed) if people else None
    return HumanEvaluation(
        package=key.package,
        created=key.created,
        models=key.models,
        prompts={number: prompt.label for number, prompt in key.prompts.items()},
        agreement=tuple(_agreements(reviews, seed)),
        win_rates=tuple(_win_rates(reviews.preferences, key.models, draws)) if draws else (),
        ratings=tuple(_mean_ratings(reviews.ratings, key.models, draws)) if draws else (),
        differences=tuple(_differences(reviews.ratings, key.models, draws)) if draws else (),
        left=_left(reviews.preferences),
        judge=judge_agreement(reviews, key, seed),
        comments=reviews.comments,
        reviewers=reviews.reviewers,
        missing=reviews.missing,
        rejected=reviews.rejected,
        excluded=key.excluded,
        notes=tuple(_notes(reviews, people)),
    )


def _agreements(reviews: Reviews, seed: int) -> Iterator[Agreement]:
    if reviews.preferences:
        # Seen from one and the same model, whichever side it stood on.
        preferred: Judged = {
            (p.reviewer, (p.prompt, *(two := sorted((p.left, p.right))))): p.points(two[0])
            for p in reviews.preferences
        }
        yield _agreement(PREFERENCE, preferred, seed)
    for question in QUESTIONS:
        given: Judged = {
            (r.reviewer, (r.prompt, r.model)): float(r.value)
            for r in reviews.ratings
            if r.question == question.id
        }
        if given:
            yield _agreement(question.id, given, seed)


def _agreement(question: str, given: Judged, seed: int) -> Agreement:
    reviewers = sorted({reviewer for reviewer, _ in given})
    things = sorted({thing for _, thing in given})
    table = [[given.get((reviewer, thing)) for thing in things] for reviewer in reviewers]
    shared = sum(sum(row[i] is not None for row in table) > 1 for i in range(len(things)))
    return Agreement(
        question=question,
        alpha=krippendorff_interval(table, "ordinal", seed),
        shared=shared,
        judgements=len(given),
    )


def _win_rates(
    preferences: Iterable[Preference], models: Iterable[str], draws: Draws
) -> Iterator[WinRate]:
    every = list(preferences)
    for model, other in combinations(models, 2):
        compared = [p for p in every if {p.left, p.right} == {model, other}]
        if not compared:
            continue
        points = [p.points(model) for p in compared]
        data = Clustered(
            tuple(p.reviewer for p in compared), tuple(p.prompt for p in compared), tuple(points)
        )
        yield WinRate(
            model=model,
            other=other,
            rate=mean_of(data, draws, (0.0, 1.0)),
            wins=points.count(1.0),
            ties=points.count(0.5),
            losses=points.count(0.0),
            prompts=len(set(data.prompts)),
        )


def _rated(ratings: Iterable[Rating], question: str, model: str) -> Clustered:
    chosen = [r for r in ratings if r.question == question and r.model == model]
    return Clustered(
        tuple(r.reviewer for r in chosen),
        tuple(r.prompt for r in chosen),
        tuple(float(r.value) for r in chosen),
    )


def _mean_ratings(
    ratings: tuple[Rating, ...], models: tuple[str, ...], draws: Draws
) -> Iterator[MeanRating]:
    for question in QUESTIONS:
        for model in models:
            if (data := _rated(ratings, question.id, model)).values:
                yield MeanRating(
                    question=question.id,
                    model=model,
                    mean=mean_of(data, draws, _RATING_SPAN),
                    n=len(data.values),
                )


def _differences(
    ratings: tuple[Rating, ...], models: tuple[str, ...], draws: Draws
) -> Iterator[RatingDifference]:
    for question in QUESTIONS:
        for model, other in combinations(models, 2):
            first, second = (_rated(ratings, question.id, each) for each in (model, other))
            if first.values and second.values:
                yield RatingDifference(
                    question=question.id,
                    model=model,
                    other=other,
                    difference=difference_of(first, second, draws, HIGHEST - LOWEST),
                )


def _left(preferences: Iterable[Preference]) -> Interval | None:
    clear = [p.choice for p in preferences if p.choice != "equal"]
    return share_interval(clear.count("a"), len(clear)) if clear else None


def _notes(reviews: Reviews, people: list[str]) -> Iterator[str]:
    unfinished = [c for c in reviews.reviewers if c.counted and c.done + c.skipped < c.items]
    failed = [card.id for card in reviews.reviewers if not card.counted]
    if not people:
        yield "No reviewer passed the attention checks: there are no numbers."
    elif len(people) < FEW_REVIEWERS:
        yield (
            f"Only the answers of {len(people)} reviewer{'s' * (len(people) > 1)} are counted. "
            "Intervals draw reviewers too, which says little with fewer than "
            f"{FEW_REVIEWERS}: read them as rough."
        )
    if failed:
        yield f"Left out for failed attention checks: pages {', '.join(failed)}."
    if unfinished:
        pages = ", ".join(card.id for card in unfinished)
        yield f"Not finished, and counted as far as they go: pages {pages}."
    if reviews.missing:
        yield f"Not come back: pages {', '.join(reviews.missing)}."


def _numbers(name: str, interval: Interval) -> dict[str, float]:
    return {
        name: interval.estimate,
        f"{name}.low": interval.low,
        f"{name}.high": interval.high,
    }
