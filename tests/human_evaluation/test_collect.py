"""What comes back: checked, refused with a reason, and de-blinded right."""

from __future__ import annotations

import copy
import json
import random

import pytest

from ccai_core.errors import DataError
from ccai_core.human_evaluation.collect import collect_reviews
from ccai_core.human_evaluation.key import read_key
from tests.human_evaluation.review_sample import (
    BASE,
    TUNED,
    all_files,
    opinion,
    review,
    saved,
    write,
)


@pytest.fixture
def key():
    return review(6, reviewers=3)[1]


def opinions(page, **more):
    rng = random.Random(page.id)
    return {item.id: opinion(item, rng) | more for item in page.items}


def test_every_answer_gets_its_models_back(key, tmp_path):
    page = key.reviewers[0]
    given = {}
    for item in page.items:
        if item.kind == "pair" and not item.is_check:
            given[item.id] = {"choice": "ab"[item.models.index(TUNED)]}
        elif not item.is_check:
            value = 5 if item.models == (TUNED,) else 2
            given[item.id] = {"ratings": dict.fromkeys(("emptiness", "mindfulness"), value)}
    found = collect_reviews([write(tmp_path, saved(key, page, given))], key)
    assert len(found.preferences) == 6
    assert [p.points(TUNED) for p in found.preferences] == [1.0] * 6
    assert [p.points(BASE) for p in found.preferences] == [0.0] * 6
    assert {p.left for p in found.preferences} == {BASE, TUNED}
    assert {(r.model, r.value) for r in found.ratings} == {(TUNED, 5), (BASE, 2)}
    assert found.missing == ("02", "03")


def test_unfinished_skipped_and_failed_are_told_apart(key, tmp_path):
    first, second, third = key.reviewers
    half = {i.id: opinion(i, random.Random(0)) for i in first.items[: len(first.items) // 2]}
    harmful = {i.id for i in second.items if not i.is_check and key.prompts[i.prompt].harmful}
    skips = opinions(second) | {
        i: {"choice": None, "ratings": {}, "skipped": True} for i in harmful
    }
    careless = opinions(third)
    check = next(i for i in third.items if i.is_check and i.kind == "rating")
    careless[check.id] = {
        "ratings": careless[check.id]["ratings"] | {"emptiness": check.rating % 5 + 1}
    }
    files = [
        write(tmp_path, saved(key, page, given))
        for page, given in ((first, half), (second, skips), (third, careless))
    ]
    found = collect_reviews(files, key)
    cards = {card.id: card for card in found.reviewers}
    assert 0 < cards["01"].done < cards["01"].items
    assert cards["02"].skipped == len(harmful) > 0
    assert cards["02"].done + cards["02"].skipped == cards["02"].items == 18
    assert [cards[i].counted for i in ("01", "02", "03")] == [True, True, False]
    assert "03" not in {p.reviewer for p in found.preferences}
    assert "03" in {p.reviewer for p in collect_reviews(files, key, 1).preferences}


def _other_package(values):
    values["package"] = "0" * 16


def _edited(values):
    values["answers"][0]["comment"] = "Better than I said."


def _turned(values):
    answer = next(a for a in values["answers"] if a["choice"] in ("a", "b"))
    answer["choice"] = {"a": "b", "b": "a"}[answer["choice"]]


def _dropped(values):
    values["answers"].pop()


def _as_another(values):
    values["reviewer"] = "02"


def _unsigned(values):
    del values["signature"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_other_package, "is of another package"),
        (_edited, "was changed after its page saved it"),
        (_turned, "was changed after its page saved it"),
        (_dropped, "was changed after its page saved it"),
        (_as_another, "was changed after its page saved it"),
        (_unsigned, "signature: Field required"),
    ],
)
def test_a_file_that_was_changed_is_refused(key, tmp_path, change, reason):
    page = key.reviewers[0]
    values = copy.deepcopy(saved(key, page, opinions(page)))
    change(values)
    path = write(tmp_path, values)
    with pytest.raises(DataError, match=reason):
        collect_reviews([path], key)


def _beyond(answer, item):
    answer["ratings"] = {"emptiness": 6}


def _invented(answer, item):
    answer["id"] = "f" * 16


def _not_asked(answer, item):
    answer["ratings"] = {"beauty": 3}


@pytest.mark.parametrize(
    ("change", "reason"),
    [(_beyond, "a rating beyond 1 to 5"), (_invented, "has no item"), (_not_asked, "not ask")],
)
def test_what_no_page_can_have_saved_is_refused_even_when_signed(key, tmp_path, change, reason):
    page = key.reviewers[0]
    item = next(i for i in page.items if i.kind == "rating")
    values = saved(key, page, opinions(page))
    change(next(a for a in values["answers"] if a["id"] == item.id), item)
    again = saved(key, page, {}, answers=values["answers"])
    with pytest.raises(DataError, match=reason):
        collect_reviews([write(tmp_path, again)], key)


def test_without_consent_nothing_counts(key, tmp_path):
    page = key.reviewers[0]
    with pytest.raises(DataError, match="has not agreed"):
        collect_reviews([write(tmp_path, saved(key, page, opinions(page), consent=None))], key)


def test_the_newest_of_two_files_of_a_page_counts_and_the_rest_goes_on(key, tmp_path):
    page = key.reviewers[0]
    old = saved(key, page, opinions(page, comment="old"), exported="2026-11-26T10:00:00.000Z")
    new = saved(key, page, opinions(page, comment="new"))
    torn = tmp_path / "torn.json"
    torn.write_text(json.dumps(new)[:200], encoding="utf-8")
    paths = [write(tmp_path, new, "b.json"), torn, write(tmp_path, old, "a.json")]
    found = collect_reviews([*paths, tmp_path / "away.json"], key)
    assert {comment.text for comment in found.comments} == {"new"}
    assert set(found.rejected) == {"torn.json", "a.json", "away.json"}
    assert "is no whole JSON file" in found.rejected["torn.json"]
    assert found.rejected["a.json"] == "page 01 is there twice; its newest file counts."
    assert not any(str(tmp_path) in reason for reason in found.rejected.values())


def test_a_key_written_twice_in_a_file_is_no_way_around_the_signature(key, tmp_path):
    page = key.reviewers[0]
    text = json.dumps(saved(key, page, opinions(page)))
    path = tmp_path / "twice.json"
    path.write_text(text[:-1] + ', "answers": []}', encoding="utf-8")
    with pytest.raises(DataError, match="'answers' stands there twice"):
        collect_reviews([path], key)


def test_comments_do_not_say_whose_they_are(key, tmp_path):
    files = all_files(tmp_path, key)
    for path, page in zip(files, key.reviewers, strict=True):
        given = {page.items[-1].id: opinion(page.items[-1], random.Random(0)) | {"comment": " z "}}
        write(tmp_path, saved(key, page, given), path.name)
    found = collect_reviews(files, key)
    assert all(set(c.model_dump()) == {"prompt", "models", "text"} for c in found.comments)
    prompts = [comment.prompt for comment in found.comments]
    assert prompts == sorted(prompts)


def test_a_key_that_is_none_is_refused(tmp_path):
    (tmp_path / "key.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"key.json \(a review's key\): package: Field required"):
        read_key(tmp_path / "key.json")
    with pytest.raises(DataError, match="without it nobody can say"):
        read_key(tmp_path / "none.json")
