"""The page of a comparison: complete in itself, nothing in it is run, no prompt is in it."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from ccai_core.comparison.build import BuildConfig, build_comparison
from ccai_core.comparison.figures import figures
from ccai_core.comparison.page import render_page
from ccai_core.comparison.reading import read_results
from ccai_core.traced import run_address
from tests.comparison.planted_results import result, saved, sizes
from tests.report_sample import evaluation

EVIL = '<script>alert("$x$")</script>&'


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    given = read_results(saved(folder, *sizes((0.2, 0.4), (0.3, 0.6), (0.4, 0.8))))
    comparison = build_comparison(given, BuildConfig(), "2026-11-27T00:00:00+00:00", "c")
    return comparison, figures(comparison)


def test_all_pictures_are_drawn_and_say_what_they_show(drawn):
    _, pictures = drawn
    assert set(pictures) == {"radar", "forest", "scaling"}
    for picture in pictures.values():
        root = ET.fromstring(picture)
        assert root.get("role") == "img"
        title, words = root[0], root[1]
        assert root.get("aria-labelledby") == f"{title.get('id')} {words.get('id')}"
    assert "tuned-2: Safe answers 0.80" in pictures["radar"]
    assert "Safe answers, tuned-1: +0.300" in pictures["forest"]
    assert "Safe answers, difference: +0.100 for ten times the size" in pictures["scaling"]


def test_the_page_loads_nothing_and_its_ids_are_unique(drawn):
    page = render_page(*drawn)
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)
    assert "http" not in re.sub(r"http-equiv", "", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert page.count("<svg ") == 3
    assert "currentColor" in page


def test_every_measure_has_a_table_of_levels_and_one_of_differences(drawn):
    comparison, pictures = drawn
    page = render_page(comparison, pictures)
    for measure in comparison.measures:
        assert f"{measure.title} of each model" in page
        assert f"{measure.title}: paired differences" in page
    assert "80.0%" in page
    assert "100,000,000" in page


def test_names_are_data(tmp_path):
    given = read_results(saved(tmp_path, result(baseline=f"{EVIL}@1", trained=f"b{EVIL}@2")))
    comparison = build_comparison(given, BuildConfig(), "now", f"command {EVIL}")
    page = render_page(comparison, figures(comparison))
    assert "<script>alert" not in page
    assert page.count("<script>") == 1


def test_no_prompt_and_no_answer_is_shown(tmp_path):
    spoken = evaluation(asked={"suite": "poc"})
    given = read_results(saved(tmp_path, spoken))
    comparison = build_comparison(given, BuildConfig(), "now", "c")
    page = render_page(comparison, figures(comparison)) + comparison.model_dump_json()
    assert spoken.examples
    for example in spoken.examples:
        assert example.prompt not in page
        assert example.trained.split("\n")[0] not in page


def test_a_run_is_linked_where_its_store_is_a_server(drawn):
    comparison, pictures = drawn
    served = {"run": "r1", "experiment": "7", "tracking": "https://mlflow.example/"}
    for tracking, linked in ((served["tracking"], True), ("sqlite:///x.db", False)):
        known = comparison.origins[0].model_copy(update={**served, "tracking": tracking})
        page = render_page(comparison.model_copy(update={"origins": (known,) * 3}), pictures)
        address = 'href="https://mlflow.example/#/experiments/7/runs/r1"'
        assert (address in page) is linked
    assert run_address("r1", "7", "javascript:alert(1)") is None
