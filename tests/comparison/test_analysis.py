"""The research analysis: every number is linked and true, and what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ccai_core.comparison.analysis import research_analysis
from ccai_core.comparison.build import BuildConfig, build_comparison, plain_origin
from ccai_core.comparison.reading import read_results
from ccai_core.comparison.traced_tables import COMPARISON_FILE, comparison_sources
from ccai_core.evaluation.verdict import verdict_table
from ccai_core.traced import Trace, read_source
from tests.comparison.planted_results import result, saved, sizes
from tests.traced_text import untraced, wrong


def written(folder: Path, *results, run: str | None = None) -> str:
    given = read_results(saved(folder, *results))
    origins = [
        plain_origin(each).model_copy(
            update={"file": each.file.name, "run": run, "command": run and "python -m flows.poc"}
        )
        for each in given
    ]
    comparison = build_comparison(given, BuildConfig(), "now", "python -m flows.compare", origins)
    (folder / COMPARISON_FILE).write_text(comparison.model_dump_json(), encoding="utf-8")
    return research_analysis(comparison_sources(comparison, folder, folder, run="run-of-all"))


@pytest.fixture
def results():
    return sizes((0.2, 0.4), (0.3, 0.6), (0.4, 0.8))


def test_every_number_is_linked_and_true(tmp_path, results):
    results[0] = results[0].model_copy(
        update={"tables": (verdict_table(results[0].metrics, weak_judge=False),)}
    )
    text = written(tmp_path, *results)
    assert untraced(text.partition("## Trace")[0]) == []
    assert wrong(text, tmp_path) == []
    # A number that is typed, or changed afterwards, would be noticed.
    assert untraced("It rose by 20 points.")
    assert wrong(text.replace("| 80.0% (", "| 81.0% ("), tmp_path)


def test_every_row_has_the_numbers_of_its_own_models(tmp_path, results):
    text = written(tmp_path, *results)
    for number, points in enumerate(("20.0", "30.0", "40.0")):
        assert f"| `tuned-{number}` | `base-{number}` | [+{points} points (" in text
        assert f"| `tuned-{number}` | [{2 * float(points):.1f}% (" in text


def test_every_source_has_its_run_its_file_and_its_command(tmp_path, results):
    text = written(tmp_path, *results, run="r17")
    sources = text.partition("### Sources")[2]
    for number in range(3):
        assert f"[`evaluation-{number}.json`](evaluation-{number}.json)" in sources
    assert sources.count("`r17`") == 3
    assert "`run-of-all`" in sources
    assert sources.count("`python -m flows.poc`") == 3


def test_what_is_missing_is_said(tmp_path):
    text = written(tmp_path, result())
    missing = text.partition("## What is missing")[2]
    for group in ("Helpfulness", "Robustness", "Cooperation", "Change over model size"):
        assert f"- {group}: not measured." in missing
    assert "The MLflow run of `evaluation-0`: none is known." in missing
    assert "Not measured: there is no verdict" in text


def test_a_value_that_was_removed_is_not_measured(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a/b": {"c~": [0.5, None]}}), encoding="utf-8")
    source = read_source("a", tmp_path / "a.json", tmp_path)
    trace = Trace()
    assert trace.value(source, "/a~1b/c~0/0", str) == "[0.5](#n1)"
    assert trace.value(source, "/a~1b/c~0/1", str) == "not measured"
    assert trace.value(source, "/a~1b/c~0/2", str) == "not measured"
    assert trace.value(source, "/a~1b/c~0/x", str, "unset") == "unset"
    assert trace.value(source, "/a~1b/c~0/0", str) == "[0.5](#n1)"
    gone = read_source("gone", tmp_path / "gone.json", tmp_path)
    assert trace.value(gone, "/a", str) == "not measured"
    assert "gone" not in trace.sources()


def test_text_of_data_is_no_markup(tmp_path):
    evil = "](javascript:x) <script>|`"
    (tmp_path / "a.json").write_text(json.dumps({"a": evil + "1"}), encoding="utf-8")
    trace = Trace()
    said = trace.text(read_source(f"n{evil}", tmp_path / "a.json", tmp_path), "/a")
    assert said.startswith("[\\](javascript:x) &lt;script&gt;")
    assert "<script>" not in trace.numbers() + trace.sources()
