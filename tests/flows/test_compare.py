"""The flow that compares evaluations: pages and data from real artifacts, traced to their runs."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from ccai_core.comparison.reading import read_results
from ccai_core.comparison.results import Comparison
from ccai_core.errors import ArtifactError
from flows.cli import parse
from flows.command import command_for
from flows.compare import compare
from flows.compare_config import CompareConfig
from flows.compare_steps import plan_compare
from infra.origin import find_origin, store_of
from tests.traced_text import untraced, wrong


@pytest.fixture(scope="module")
def artifact(finished):
    (folder,) = (finished.workspace / "artifacts").glob("evaluation-*")
    return folder


@pytest.fixture(scope="module")
def compared(artifact, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    # The same evaluation as another model's would look.
    other = json.loads((artifact / "evaluation.json").read_text("utf-8"))
    other["trained_model"] = "other@9"
    (folder / "other.json").write_text(json.dumps(other), encoding="utf-8")
    config = CompareConfig(results=(artifact, folder / "other.json"), workspace=folder / "ws")
    return config, compare(config)


def read(config) -> Comparison:
    return Comparison.model_validate_json((config.workspace / "comparison.json").read_text("utf-8"))


def test_a_comparison_is_written_and_logged(compared):
    config, summary = compared
    found = read(config)
    assert [model.label for model in found.models][-1] == "other"
    assert all(model.parameters for model in found.models[:2])
    page = (config.workspace / "comparison.html").read_text("utf-8")
    assert page.startswith("<!doctype html>")
    logged = {file.name for file in config.workspace.glob("mlartifacts/*/artifacts/**/*")}
    assert {"comparison.json", "comparison.html", "research_analysis.md", "forest.svg"} <= logged
    assert summary.findings


def test_every_number_of_the_analysis_is_linked_and_true(compared):
    config, _ = compared
    text = (config.workspace / "research_analysis.md").read_text("utf-8")
    assert untraced(text.partition("## Trace")[0]) == []
    assert wrong(text, config.workspace) == []


def test_an_artifact_is_traced_to_its_run_and_its_command(compared, artifact, finished):
    config, _ = compared
    known, unknown = read(config).origins
    origin = find_origin(store_of(artifact), artifact.name)
    assert known.run == origin.run_id
    assert (config.workspace.resolve() / known.file).resolve() == artifact / "evaluation.json"
    assert known.command.startswith("python -m flows.poc --workspace ")
    assert f"--max-pairs {finished.values['max_pairs']}" in known.command
    assert (unknown.run, unknown.command) == (None, None)
    assert find_origin(store_of(artifact), "evaluation-of-nobody") is None


def test_an_artifacts_file_stands_for_its_folder(artifact):
    by_folder, by_file = (read_results([p])[0] for p in (artifact, artifact / "evaluation.json"))
    assert by_file.name == by_folder.name == artifact.name


def test_a_name_that_is_no_artifacts_is_not_searched_for(artifact):
    assert find_origin(store_of(artifact), "x' OR tags.stage = 'evaluation") is None


def test_the_command_that_it_names_makes_it_again(compared):
    config, _ = compared
    command = read(config).command
    assert command == command_for("compare", config)
    words = re.sub(r"^python -m flows\.compare ", "", command).split(" ")
    assert parse(CompareConfig, "compare", "", words)[0] == config


def test_a_changed_artifact_is_refused(artifact, tmp_path):
    copy = tmp_path / artifact.name
    shutil.copytree(artifact, copy)
    with (copy / "evaluation.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(ArtifactError, match="was changed since it was made"):
        plan_compare(CompareConfig(results=(copy,), workspace=tmp_path / "ws"))
