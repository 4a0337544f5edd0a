"""The numbers: right against the literature's own packages, and honest where little is known."""

from __future__ import annotations

import random
import re

import krippendorff
import numpy as np
import pytest

from ccai_core.human_evaluation.clusters import Clustered, Draws, difference_of, mean_of
from ccai_core.human_evaluation.collect import collect_reviews
from ccai_core.human_evaluation.questions import QUESTIONS
from ccai_core.human_evaluation.report import headline, render_html, render_markdown
from ccai_core.human_evaluation.results import evaluate_reviews
from tests.human_evaluation.review_sample import (
    BASE,
    TUNED,
    all_files,
    opinion,
    review,
    saved,
    write,
)


def result_of(tmp_path, count=16, liking=0.75, seed=0, **design):
    _, key = review(count, **{"reviewers": 6, **design})
    reviews = collect_reviews(all_files(tmp_path, key, seed, liking), key)
    return evaluate_reviews(reviews, key), reviews, key


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """Six reviewers, four of whom see each item."""
    return result_of(tmp_path_factory.mktemp("files"), liking=0.8, per_item=4)


def test_alpha_is_that_of_the_krippendorff_package(usual):
    result, reviews, _ = usual
    for question in QUESTIONS:
        things = sorted({(r.prompt, r.model) for r in reviews.ratings})
        table = np.full((6, len(things)), np.nan)
        for r in reviews.ratings:
            if r.question == question.id:
                table[int(r.reviewer) - 1, things.index((r.prompt, r.model))] = r.value
        (line,) = [each for each in result.agreement if each.question == question.id]
        expected = krippendorff.alpha(table, level_of_measurement="ordinal")
        assert line.alpha.estimate == pytest.approx(expected, abs=1e-12)
        assert line.alpha.low <= expected <= line.alpha.high
        assert line.shared == len(things)
    things = sorted({p.prompt for p in reviews.preferences})
    table = np.full((6, len(things)), np.nan)
    for p in reviews.preferences:
        table[int(p.reviewer) - 1, things.index(p.prompt)] = p.points(TUNED)
    (line,) = [each for each in result.agreement if each.question == "preference"]
    expected = krippendorff.alpha(table, level_of_measurement="ordinal")
    assert line.alpha.estimate == pytest.approx(expected, abs=1e-12)


def test_a_clear_preference_is_found_and_none_is_not(usual, tmp_path):
    liked, _, _ = usual
    even, _, _ = result_of(tmp_path, liking=0.5, ratings=False)
    (win,) = liked.win_rates
    assert (win.model, win.other) == (BASE, TUNED)
    assert win.rate.high < 0.5
    assert win.wins + win.ties + win.losses == 16 * 4
    assert headline(liked)[0].startswith(f"{TUNED} is preferred. ")
    assert headline(even)[0].startswith("No difference shown. ")


def test_intervals_cover_when_reviewers_and_prompts_both_lean():
    """Judgements that come in clusters: an interval for independent ones is far too narrow."""
    rng, covered, plain = np.random.default_rng(0), 0, 0
    for _ in range(60):
        by_reviewer, by_prompt = rng.normal(0, 1, 8), rng.normal(0, 1, 15)
        reviewers = [str(r) for r in range(8) for _ in range(15)]
        prompts = [str(p) for _ in range(8) for p in range(15)]
        values = [
            by_reviewer[int(r)] + by_prompt[int(p)] + rng.normal()
            for r, p in zip(reviewers, prompts, strict=True)
        ]
        data = Clustered(tuple(reviewers), tuple(prompts), tuple(values))
        found = mean_of(data, Draws(reviewers, prompts, seed=0), (-9, 9))
        covered += found.low <= 0 <= found.high
        plain += abs(np.mean(values)) <= 1.96 * np.std(values) / np.sqrt(len(values))
    assert covered / 60 > 0.88
    assert plain / 60 < 0.7


def test_where_nothing_varies_no_certainty_is_claimed():
    data = Clustered(("1", "2") * 6, tuple("abcdef") * 2, (1.0,) * 12)
    draws = Draws(data.reviewers, data.prompts, seed=0)
    assert mean_of(data, draws, (0, 1)).low == pytest.approx(0.5)
    both = difference_of(data, data._replace(values=(0.0,) * 12), draws, 1)
    assert (both.estimate, both.low) == (1.0, pytest.approx(0.5))


def test_the_judge_is_compared_with_what_most_people_prefer(usual):
    # The sample's judge always gives TUNED the higher score.
    result, reviews, key = usual
    by_prompt: dict[str, list[float]] = {}
    for p in reviews.preferences:
        by_prompt.setdefault(p.prompt, []).append(p.points(TUNED))
    means = [np.mean(each) for each in by_prompt.values()]
    assert result.judge.compared == sum(m != 0.5 for m in means)
    assert result.judge.undecided == sum(m == 0.5 for m in means)
    assert result.judge.same.estimate == pytest.approx(
        sum(m > 0.5 for m in means) / result.judge.compared
    )
    assert result.judge.rank_correlation.low > 0
    scoreless = key.model_copy(
        update={"prompts": {n: p.model_copy(update={"scores": {}}) for n, p in key.prompts.items()}}
    )
    assert evaluate_reviews(reviews, scoreless).judge is None


def test_the_same_files_give_the_same_digits(usual):
    result, reviews, key = usual
    assert evaluate_reviews(reviews, key) == result


def test_the_reports_say_the_same_and_show_texts_as_they_are(tmp_path):
    _, key = review(6, reviewers=3)
    files = all_files(tmp_path, key)
    page = key.reviewers[0]
    rng = random.Random(0)
    item = next(i for i in page.items if not i.is_check)
    hostile = "a | b <script>alert(1)</script> [x](http://x) *so*\n# no heading"
    given = {i.id: opinion(i, rng) for i in page.items[:5]} | {
        item.id: opinion(item, rng) | {"comment": hostile}
    }
    files[0] = write(tmp_path, saved(key, page, given), files[0].name)
    result = evaluate_reviews(collect_reviews(files[:2], key), key)
    html, markdown = render_html(result), render_markdown(result)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "\n# no heading" not in markdown
    assert "<script" not in markdown.replace("\\<", "")
    for line in (*headline(result), *result.notes):
        assert line in re.sub(r"\\(.)", r"\1", markdown)
    assert any("Not finished" in note for note in result.notes)
    assert "Not come back: pages 03." in result.notes
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) >= 3 for row in rows)


def test_metrics_are_finite_numbers(usual):
    metrics = usual[0].metrics()
    assert np.isfinite(list(metrics.values())).all()
    assert metrics["reviewers"] == 6
    assert metrics["alpha.emptiness.low"] <= metrics["alpha.emptiness"]


def test_nobody_counted_gives_no_numbers_and_says_so(tmp_path):
    _, key = review(4, reviewers=1)
    page = key.reviewers[0]
    given = {i.id: opinion(i, random.Random(0)) for i in page.items}
    for item in page.items:
        if item.is_check and item.kind == "rating":
            given[item.id] = {"ratings": {q.id: item.rating % 5 + 1 for q in QUESTIONS}}
    reviews = collect_reviews([write(tmp_path, saved(key, page, given))], key)
    result = evaluate_reviews(reviews, key)
    assert result.win_rates == result.ratings == ()
    assert "No reviewer passed the attention checks" in result.notes[0]
    assert "No preferences were collected." in render_html(result)
