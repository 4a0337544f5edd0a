"""The package gives away nothing: neither by what is in it nor by how it is made."""

from __future__ import annotations

import json
import random
import re
import zipfile
from pathlib import Path

import pytest
from scipy.stats import binomtest

from ccai_core.errors import ArtifactError
from ccai_core.human_evaluation.design import DesignConfig
from ccai_core.human_evaluation.package import build_package
from tests.human_evaluation.review_sample import BASE, MODELS, TUNED, prompts

_DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def build(folder: Path, seed: int, given=None, models=MODELS, **design):
    folder.mkdir(parents=True, exist_ok=True)
    config = DesignConfig(**{"prompts": 12, "reviewers": 3, **design})
    package = folder / "package.zip"
    key = build_package(
        given or prompts(12), models, config, package, folder / "key.json", rng=random.Random(seed)
    )
    with zipfile.ZipFile(package) as archive:
        return key, {entry.filename: (entry, archive.read(entry)) for entry in archive.infolist()}


def sheet_of(html: bytes) -> dict:
    return json.loads(_DATA.search(html.decode())[1])


def test_the_package_holds_pages_and_no_key(tmp_path):
    key, entries = build(tmp_path, 0)
    assert sorted(entries) == [
        "expert_review/INSTRUCTIONS.txt",
        *(f"expert_review/review-0{n}.html" for n in (1, 2, 3)),
    ]
    assert {entry.date_time for entry, _ in entries.values()} == {(1980, 1, 1, 0, 0, 0)}
    for _, content in entries.values():
        for word in ("base@1", "tuned@2", "org/", *key.prompts, "emptiness.jsonl"):
            assert word not in content.decode()
    assert (tmp_path / "key.json").stat().st_mode & 0o077 == 0


def test_a_key_that_is_there_is_never_written_over(tmp_path):
    build(tmp_path, 0)
    before = (tmp_path / "key.json").read_bytes()
    with pytest.raises(ArtifactError, match="is not written over"):
        build(tmp_path, 1)
    assert (tmp_path / "key.json").read_bytes() == before


def test_who_wrote_what_changes_nothing_but_the_answers(tmp_path):
    """With the models' answers swapped, the same draws give the same package, letter by letter."""
    every = [
        p.model_copy(update={"answers": {BASE: f"<1 {p.id}>", TUNED: f"<2 {p.id}>"}})
        for p in prompts(12)
    ]
    swapped = [
        p.model_copy(update={"answers": {BASE: p.answers[TUNED], TUNED: p.answers[BASE]}})
        for p in every
    ]
    _, one = build(tmp_path / "one", 7, every)
    _, two = build(tmp_path / "two", 7, swapped)
    for name in one:
        blank = [re.sub(rb"u003c[12] p", b"u003c p", each[name][1]) for each in (one, two)]
        assert blank[0] == blank[1]


def test_a_blind_script_cannot_beat_chance(tmp_path):
    """Learn from 25 packages whose key is known, guess in 25 others from all but the texts."""
    learned: dict[tuple, list[int]] = {}
    right = guesses = 0
    for seed in range(50):
        key, entries = build(tmp_path / str(seed), seed, prompts=8, reviewers=3)
        for page in key.reviewers:
            entry, html = entries[f"expert_review/review-{page.id}.html"]
            for clues, is_tuned in shown(sheet_of(html), page, entry.file_size):
                for clue in clues:
                    hits = learned.setdefault(clue, [0, 0])
                    if seed < 25:
                        hits[is_tuned] += 1
                if seed >= 25:
                    votes = sum(
                        (learned[c][1] - learned[c][0]) / max(5, sum(learned[c])) for c in clues
                    )
                    right += (votes > 0) == is_tuned
                    guesses += 1
    assert guesses > 2000
    test = binomtest(right, guesses, 0.5)
    assert test.pvalue > 0.001, f"{right} of {guesses} right"
    assert 0.46 < right / guesses < 0.54


def shown(sheet: dict, page, size: int):
    """Yield, for every answer on a page, what can be seen of it without reading, and the truth."""
    items = sheet["items"]
    for index, item in enumerate(items):
        models = page.items[index].models
        before = items[index - 1]["kind"] if index else ""
        same = [i for i, other in enumerate(items) if other["prompt"] == item["prompt"]]
        for side, model in enumerate(models):
            clues = [
                ("side", item["kind"], side),
                ("place", item["kind"], index * 6 // len(items), side),
                ("index", index, side),
                ("parity", index % 2, side),
                ("id", item["id"][0], side),
                ("end of id", item["id"][-1], side),
                ("order of ids", index > 0 and item["id"] > items[index - 1]["id"], side),
                ("length of id", len(item["id"]), side),
                ("before", before, side),
                ("harmful", item["harmful"], side),
                ("of the same prompt", same.index(index), side),
                ("page", sheet["reviewer"], side),
                ("token", sheet["token"][0], side),
                ("keys", tuple(item), side),
                ("size", size % 7, side),
            ]
            yield clues, int(model == TUNED)


def test_a_check_looks_like_any_other_item(tmp_path):
    key, entries = build(tmp_path, 3, checks=4)
    for page in key.reviewers:
        sheet = sheet_of(entries[f"expert_review/review-{page.id}.html"][1])
        assert sum(item.is_check for item in page.items) == 4
        assert not page.items[0].is_check
        assert len({tuple(item) for item in sheet["items"]}) == 1
        assert {len(item["id"]) for item in sheet["items"]} == {16}
