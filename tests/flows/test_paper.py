"""A paper about a real proof of concept: found from the workspace alone, traced to its runs."""

from __future__ import annotations

import re

import pytest

from ccai_core.evaluation.results import EvaluationResult
from flows.paper_config import PaperConfig
from flows.paper_material import gather, newest_evaluation
from flows.paper_steps import draft
from tests.traced_text import untraced, wrong


@pytest.fixture(scope="module")
def paper(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("paper")
    config = PaperConfig(
        workspace=finished.workspace, constitution=finished.values["constitution"], out=out
    )
    return draft(gather(config)[0], config.about), out


def test_every_number_is_linked_and_true(paper):
    text, out = paper
    results = text.partition("## Results")[2].partition("## References")[0]
    assert untraced(results) == []
    assert wrong(text, out) == []


def test_it_has_every_measure_and_says_what_is_missing(paper, finished):
    text, _ = paper
    file = newest_evaluation(finished.workspace) / "evaluation.json"
    result = EvaluationResult.model_validate_json(file.read_text("utf-8"))
    for metric in result.metrics:
        assert re.search(rf"^\| {re.escape(metric.title)}( \\\*)? \| \[", text, re.M)
    for missing in ("MT-Bench", "Attacks resisted", "Cooperation"):
        assert f"| {missing} | not measured |" in text
    assert "Mindfulness, Honesty" in text.partition("### Constitution")[2]


def test_its_sources_are_the_runs_of_the_flow(paper):
    text, _ = paper
    sources = text.partition("### Sources")[2]
    for kind in ("pairs", "training", "evaluation"):
        (row, *_) = [line for line in sources.splitlines() if f"artifacts/{kind}-" in line]
        assert re.search(r"\| `[0-9a-f]{32}` \| `python -m flows\.poc ", row)
