"""Reviewers' files back, checked and with the models' names on them.

A file counts when it is whole, belongs to this package, and is as its page signed it. One that does
not is named with the reason and left out; nothing in it is mended.

    reviews = collect_reviews([Path("expert-review-3f2a90-01.json")], key)
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from ccai_core.config import Config, explain
from ccai_core.errors import DataError
from ccai_core.human_evaluation.key import KeyItem, ReviewerKey, ReviewKey
from ccai_core.human_evaluation.questions import HIGHEST, LOWEST, QUESTIONS, Choice

_LONGEST_COMMENT = 20_000
_QUESTIONS = frozenset(question.id for question in QUESTIONS)


class GivenReview(Config):
    """What a reviewer entered for one item."""

    id: str = Field(description="The item on that page.")
    choice: Choice | None = Field(description="Which answer is better, for two.")
    ratings: dict[str, int] = Field(description="Question to 1..5, for one.")
    comment: str = Field(max_length=_LONGEST_COMMENT, description="Free text.")
    skipped: bool = Field(description="The reviewer chose to pass it.")
    opened: bool = Field(description="It was in view, behind a warning or without one.")
    seconds: int = Field(ge=0, description="Time in view.")
    at: str = Field(description="When it last changed, UTC.")


class ReviewFile(Config):
    """The file that a page saves."""

    format: Literal["ccai-expert-review"] = Field(description="What this file is.")
    version: Literal[1] = Field(description="Of its layout.")
    package: str = Field(description="The package its page is from.")
    reviewer: str = Field(description="The page's number.")
    consent: str | None = Field(description="When the reviewer agreed, UTC.")
    started: str | None = Field(description="When the reviewer began, UTC.")
    exported: str = Field(description="When it was saved, UTC.")
    complete: bool = Field(description="Whether every item was done.")
    answers: tuple[GivenReview, ...] = Field(description="Items that were looked at.")
    signature: str = Field(description="The page's HMAC-SHA-256 over all the rest.")


class Preference(NamedTuple):
    """What one reviewer thinks of two answers to a prompt."""

    reviewer: str
    prompt: str
    left: str
    right: str
    choice: Choice

    def points(self, model: str) -> float:
        """Return 1 where this model's answer is the better one, 0.5 for about equal, else 0."""
        if self.choice == "equal":
            return 0.5
        return float((self.left if self.choice == "a" else self.right) == model)


class Rating(NamedTuple):
    """What one reviewer thinks of one answer, in one question."""

    reviewer: str
    prompt: str
    model: str
    question: str
    value: int


class ReviewerCard(Config):
    """How one reviewer's page came back."""

    id: str = Field(description="The page's number.")
    items: int = Field(description="Items on the page, without checks.")
    done: int = Field(description="Of these: answered.")
    skipped: int = Field(description="Of these: passed.")
    checks: int = Field(description="Attention checks that were answered.")
    checks_failed: int = Field(description="Of these: not as told.")
    minutes: float = Field(description="Time that items were in view.")
    counted: bool = Field(description="Whether the answers are in the numbers.")


class Comment(Config):
    """Free text to an item, without the reviewer's number."""

    prompt: str = Field(description="Number of the prompt.")
    models: tuple[str, ...] = Field(description="Whose answers it is about, as shown.")
    text: str = Field(description="What the reviewer wrote.")


class Reviews(NamedTuple):
    """All that came back, de-blinded."""

    preferences: tuple[Preference, ...]
    ratings: tuple[Rating, ...]
    comments: tuple[Comment, ...]
    reviewers: tuple[ReviewerCard, ...]
    rejected: dict[str, str]
    missing: tuple[str, ...]


def collect_reviews(
    paths: Sequence[Path], key: ReviewKey, failed_checks_allowed: int = 0
) -> Reviews:
    """Read, check and de-blind the reviewers' files.

    Args:
        paths: files that pages saved; of several of one page the newest counts.
        key: what `build` wrote beside the package.
        failed_checks_allowed: a reviewer who fails more attention checks is not counted.

    Raises:
        DataError: no file can be used; says of each why.
    """
    found: dict[str, tuple[Path, ReviewFile]] = {}
    rejected: dict[str, str] = {}
    for path in paths:
        try:
            file = read_review(path, key)
        except DataError as error:
            # Reports name files, not where they lay.
            rejected[path.name] = str(error).replace(f"{path}: ", "")
            continue
        before = found.get(file.reviewer)
        if before is None or file.exported > before[1].exported:
            found[file.reviewer] = path, file
        if before is not None:
            older = path if found[file.reviewer][0] != path else before[0]
            rejected[older.name] = f"page {file.reviewer} is there twice; its newest file counts."
    if not found:
        reasons = [f"  {name}: {reason}" for name, reason in rejected.items()]
        raise DataError("\n".join(["No file can be used.", *reasons]))
    opened = [_open(file, _page(key, file)) for _, (_, file) in sorted(found.items())]
    cards = [_card(key, reviewer, given, failed_checks_allowed) for reviewer, given in opened]
    counted = [pair for pair, card in zip(opened, cards, strict=True) if card.counted]
    return Reviews(
        preferences=tuple(p for reviewer, given in counted for p in _preferences(reviewer, given)),
        ratings=tuple(r for reviewer, given in counted for r in _ratings(reviewer, given)),
        comments=_comments(counted),
        reviewers=tuple(cards),
        rejected=rejected,
        missing=tuple(each.id for each in key.reviewers if each.id not in found),
    )


def read_review(path: Path, key: ReviewKey) -> ReviewFile:
    """Read one file and check that it is what a page of this package saved.

    Raises:
        DataError: names the file and what is wrong with it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is no whole JSON file ({error}). Ask for it again.") from None
    try:
        file = ReviewFile.model_validate(values, strict=False)
    except ValidationError as error:
        raise DataError(explain(error, ReviewFile, str(path))) from None
    if file.package != key.package:
        raise DataError(
            f"{path}: is of another package ({file.package:.40}); this key is of {key.package}."
        )
    page = key.reviewer(file.reviewer)
    if page is None:
        raise DataError(f"{path}: the package has no page {file.reviewer[:40]!r}.")
    if not hmac.compare_digest(sign(values, page.token).encode(), file.signature.encode()):
        raise DataError(
            f"{path}: was changed after its page saved it. Ask for the file as it was saved."
        )
    if not file.consent:
        raise DataError(f"{path}: the reviewer has not agreed to take part.")
    _check_answers(path, file, page)
    return file


def sign(values: Mapping[str, Any], token: str) -> str:
    """Return what the page with this token signs these values with."""
    content = {name: value for name, value in values.items() if name != "signature"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    # Half a character cannot be signed by a page, so what holds one was not.
    return hmac.new(token.encode(), text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if repeated := [name for name, n in Counter(name for name, _ in pairs).items() if n > 1]:
        raise ValueError(f"the key {repeated[0]!r} stands there twice")
    return dict(pairs)


def _page(key: ReviewKey, file: ReviewFile) -> ReviewerKey:
    return next(each for each in key.reviewers if each.id == file.reviewer)


def _check_answers(path: Path, file: ReviewFile, page: ReviewerKey) -> None:
    """Refuse what no page can have saved: it would be counted as something else."""
    kinds = {item.id: item.kind for item in page.items}
    for identity, times in Counter(answer.id for answer in file.answers).items():
        if identity not in kinds:
            raise DataError(f"{path}: page {file.reviewer} has no item {identity[:40]!r}.")
        if times > 1:
            raise DataError(f"{path}: item {identity} stands there {times} times.")
    for answer in file.answers:
        foreign = answer.ratings if kinds[answer.id] == "pair" else answer.choice
        values = answer.ratings.values()
        if foreign or not answer.ratings.keys() <= _QUESTIONS:
            raise DataError(f"{path}: item {answer.id} has answers to what it does not ask.")
        if any(not LOWEST <= value <= HIGHEST for value in values):
            raise DataError(f"{path}: item {answer.id} has a rating beyond {LOWEST} to {HIGHEST}.")


Opened = list[tuple[KeyItem, GivenReview]]


def _open(file: ReviewFile, page: ReviewerKey) -> tuple[str, Opened]:
    items = {item.id: item for item in page.items}
    return file.reviewer, [(items[answer.id], answer) for answer in file.answers]


def _card(key: ReviewKey, reviewer: str, given: Opened, allowed: int) -> ReviewerCard:
    page = next(each for each in key.reviewers if each.id == reviewer)
    real = [(item, answer) for item, answer in given if not item.is_check]
    checks = [(i, a) for i, a in given if i.is_check and not a.skipped and _is_done(i, a)]
    failed = sum(not _as_told(item, answer) for item, answer in checks)
    return ReviewerCard(
        id=reviewer,
        items=sum(not item.is_check for item in page.items),
        done=sum(_is_done(item, answer) and not answer.skipped for item, answer in real),
        skipped=sum(answer.skipped for _, answer in real),
        checks=len(checks),
        checks_failed=failed,
        minutes=round(sum(answer.seconds for _, answer in given) / 60, 1),
        counted=failed <= allowed,
    )


def _is_done(item: KeyItem, answer: GivenReview) -> bool:
    if item.kind == "pair":
        return answer.choice is not None
    return answer.ratings.keys() == _QUESTIONS


def _as_told(item: KeyItem, answer: GivenReview) -> bool:
    if item.kind == "pair":
        return answer.choice == item.choice
    return all(value == item.rating for value in answer.ratings.values())


def _preferences(reviewer: str, given: Opened) -> Iterable[Preference]:
    for item, answer in given:
        if not item.is_check and not answer.skipped and answer.choice:
            yield Preference(reviewer, item.prompt, item.models[0], item.models[1], answer.choice)


def _ratings(reviewer: str, given: Opened) -> Iterable[Rating]:
    # A question that was answered counts, also where others of the item are still open.
    for item, answer in given:
        if not item.is_check and not answer.skipped:
            for question, value in sorted(answer.ratings.items()):
                yield Rating(reviewer, item.prompt, item.models[0], question, value)


def _comments(opened: Iterable[tuple[str, Opened]]) -> tuple[Comment, ...]:
    """Return what was written, by prompt: who wrote what is not to be told from the order."""
    written = [
        Comment(prompt=item.prompt, models=item.models, text=answer.comment.strip())
        for _, given in opened
        for item, answer in given
        if not item.is_check and answer.comment.strip()
    ]
    return tuple(sorted(written, key=lambda comment: (comment.prompt, comment.text)))
