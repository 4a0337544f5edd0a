"""The report of an expert review: the same sentences and tables as one HTML page and as Markdown.

Comments and names are data: escaped in both.

    write_whole(folder / "expert_review.html", render_html(result))
    write_whole(folder / "expert_review.md", render_markdown(result))
"""

from __future__ import annotations

from collections.abc import Iterator

from ccai_core.human_evaluation.results import PREFERENCE
from ccai_core.human_evaluation.results import HumanEvaluation as Result
from ccai_core.human_evaluation.words import (
    comparison,
    number,
    question_title,
    reading_of_alpha,
    share,
    signed,
    with_interval,
)
from ccai_core.report.sections import Section, SectionPage


def headline(result: Result) -> tuple[str, ...]:
    """Return what was found, a sentence each two models."""
    if not result.win_rates:
        return ("No preferences were collected.",)
    return tuple(comparison(win) for win in result.win_rates)


def render_markdown(result: Result) -> str:
    """Return the report as Markdown."""
    return _page(result).markdown()


def render_html(result: Result) -> str:
    """Return the report as a page that loads nothing and runs no script."""
    return _page(result).html()


def _page(result: Result) -> SectionPage:
    facts = (
        ("Package", result.package),
        ("Made", result.created),
        ("Models", ", ".join(result.models)),
    )
    return SectionPage(
        "Expert review", facts, headline(result), result.notes, tuple(sections(result))
    )


def sections(result: Result) -> Iterator[Section]:
    """Yield the parts of the report in order."""
    yield _preferences(result)
    if result.ratings:
        yield _ratings(result)
        yield _differences(result)
    yield _agreement(result)
    if result.judge:
        yield _judge(result)
    yield _reviewers(result)
    if result.rejected or result.excluded:
        yield _left_out(result)
    if result.comments:
        yield _comments(result)


def _preferences(result: Result) -> Section:
    leaning = (
        f" The answer on the left got {with_interval(result.left, share)} of the clear "
        "preferences; models stood there equally often."
        if result.left
        else ""
    )
    return Section(
        "Preferences",
        "Share of comparisons that a model won; about equal counts half for either. Intervals are "
        f"95%, from a bootstrap that draws both reviewers and prompts.{leaning}",
        ("model", "against", "win rate", "won", "equal", "lost", "prompts"),
        tuple(
            (
                win.model,
                win.other,
                with_interval(win.rate, share),
                str(win.wins),
                str(win.ties),
                str(win.losses),
                str(win.prompts),
            )
            for win in result.win_rates
        ),
    )


def _ratings(result: Result) -> Section:
    return Section(
        "Ratings",
        "Means from 1 to 5 with 95% intervals.",
        ("question", "model", "mean", "ratings"),
        tuple(
            (question_title(r.question), r.model, with_interval(r.mean, number), str(r.n))
            for r in result.ratings
        ),
    )


def _differences(result: Result) -> Section:
    return Section(
        "Differences of ratings",
        "The first model's mean minus the second's, from the same draws of reviewers and prompts. "
        "A difference is shown where its interval excludes 0.",
        ("question", "model", "against", "difference"),
        tuple(
            (question_title(d.question), d.model, d.other, with_interval(d.difference, signed))
            for d in result.differences
        ),
    )


def _agreement(result: Result) -> Section:
    return Section(
        "Agreement of the reviewers",
        "Krippendorff's alpha for ordered values: 1 is full agreement, 0 what chance gives. From "
        "0.8 on values are commonly relied upon, from 0.667 on for tentative conclusions.",
        ("question", "alpha", "reading", "judged by two or more", "judgements"),
        tuple(
            (
                "Preference" if line.question == PREFERENCE else question_title(line.question),
                with_interval(line.alpha, number) if line.alpha else "–",
                reading_of_alpha(line.alpha),
                str(line.shared),
                str(line.judgements),
            )
            for line in result.agreement
        ),
    )


def _judge(result: Result) -> Section:
    judge = result.judge
    assert judge is not None  # noqa: S101 (asked for above)
    correlation = judge.rank_correlation
    return Section(
        "The judge against people",
        "Whether the scores that the answers came with prefer what people prefer (chance: 50%), "
        "and how they go together with people's ratings.",
        ("measure", "value", "of"),
        (
            (
                "prefers the same answer",
                with_interval(judge.same, share) if judge.same else "–",
                f"{judge.compared} pairs; {judge.undecided} more without a preference",
            ),
            (
                "rank correlation with the mean rating",
                with_interval(correlation, number) if correlation else "–",
                f"{judge.rated} answers",
            ),
        ),
    )


def _reviewers(result: Result) -> Section:
    return Section(
        "Reviewers",
        f"{len(result.reviewers)} pages came back, {len(result.missing)} did not.",
        ("page", "items", "answered", "skipped", "checks failed", "minutes", "counted"),
        tuple(
            (
                card.id,
                str(card.items),
                str(card.done),
                str(card.skipped),
                f"{card.checks_failed} of {card.checks}",
                f"{card.minutes:.0f}",
                "yes" if card.counted else "no",
            )
            for card in result.reviewers
        ),
    )


def _left_out(result: Result) -> Section:
    return Section(
        "Left out",
        "Files that were not used, and prompts that were not shown, with the reason.",
        ("what", "reason"),
        (
            *((name, reason) for name, reason in result.rejected.items()),
            *((f"{count} prompts", reason) for reason, count in result.excluded.items()),
        ),
    )


def _comments(result: Result) -> Section:
    return Section(
        "Comments",
        "What reviewers wrote, by prompt; from whom is not kept.",
        ("prompt", "about answers of", "comment"),
        tuple(
            (
                f"{comment.prompt} ({result.prompts.get(comment.prompt, '')})",
                ", ".join(comment.models),
                comment.text,
            )
            for comment in result.comments
        ),
    )
