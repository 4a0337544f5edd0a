"""A paper from a workspace: every number linked and true, what is removed said to be missing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from ccai_core.comparison.build import BuildConfig, build_comparison, plain_origin
from ccai_core.comparison.figures import figures
from ccai_core.comparison.reading import read_results
from ccai_core.constitution import load_constitutional_config
from ccai_core.dataset_info import DatasetInfo, Lengths, SourceLicence
from ccai_core.errors import ArtifactError, DataError
from ccai_core.evaluation.verdict import verdict_table
from ccai_core.human_evaluation.collect import collect_reviews
from ccai_core.human_evaluation.results import evaluate_reviews
from ccai_core.paper.pandoc import convert
from ccai_core.training_curve import draw
from flows.paper_config import PaperConfig
from flows.paper_material import gather
from flows.paper_steps import draft, plan_paper, write_paper
from infra.artifacts import Artifact
from infra.tracking import Tracking
from tests.comparison.planted_results import saved, sizes
from tests.human_evaluation.review_sample import all_files, review
from tests.report_sample import evaluation, funnel, metrics, training, training_log
from tests.traced_text import untraced, wrong

RESULTS = ("## Abstract", "## Results", "## Limitations")


def artifact(
    workspace: Path, kind: str, files: dict[str, Any], inputs: dict[str, Any], *parents: str
) -> Path:
    made = Artifact(workspace / "artifacts", kind, "3f2a")
    for name, value in files.items():
        text = value if isinstance(value, str) else value.model_dump_json()
        (made / name).write_text(text, encoding="utf-8")
    made.finish(inputs, parents)
    return made.folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A workspace as a PoC leaves it, a comparison, and an expert review."""
    root = tmp_path_factory.mktemp("study")
    workspace = root / "ws"
    info = DatasetInfo(
        kind="pairs", title="Pairs", rows={"train": 162, "validation": 18},
        counts={"principle": {"emptiness": {"train": 46}}},
        words={"chosen": Lengths(median=40, p95=80, longest=99)},
        sources=(SourceLicence(name="scenarios", licence="Apache-2.0"),),
    )  # fmt: skip
    settings = {"model": "base@1", "config": {"generation": {"temperature": 0.7}, "judge": "none"}}
    artifact(workspace, "pairs", {"dataset.json": info, "funnel.json": funnel()}, settings)
    settings = {"model": "base@1", "config": {"method": "lora", "beta": 0.1, "patience": None}}
    trained = artifact(workspace, "training", {"training.json": training()}, settings, "pairs-3f2a")
    draw(training_log(), trained / "training_curve.svg")
    result = evaluation()
    result = result.model_copy(
        update={"tables": (verdict_table(metrics(), weak_judge=False), *result.tables)}
    )
    constitution = load_constitutional_config().fingerprint
    artifact(
        workspace, "evaluation", {"evaluation.json": result},
        {"suite": "poc", "temperature": 0.0, "constitution": constitution},
        "pairs-3f2a", "training-3f2a",
    )  # fmt: skip
    _add_comparison(root / "comparison")
    _, key = review(12, reviewers=6)
    files = all_files(root, key)
    found = evaluate_reviews(collect_reviews(files, key), key)
    (root / "expert_review.json").write_text(found.model_dump_json(), encoding="utf-8")
    return root


def _add_comparison(folder: Path) -> None:
    folder.mkdir()
    given = read_results(saved(folder, *sizes((0.2, 0.4), (0.3, 0.6), (0.4, 0.8))))
    origins = [plain_origin(g).model_copy(update={"file": g.file.name}) for g in given]
    found = build_comparison(given, BuildConfig(), "now", "python -m flows.compare", origins)
    (folder / "comparison.json").write_text(found.model_dump_json(), encoding="utf-8")
    (folder / "figures").mkdir()
    for name, picture in figures(found).items():
        (folder / "figures" / f"{name}.svg").write_text(picture, encoding="utf-8")


@pytest.fixture
def study(whole, tmp_path, monkeypatch) -> Path:
    """A copy of it that a test may change."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "study"
    shutil.copytree(whole, root)
    return root


def config(study: Path, **changes: Any) -> PaperConfig:
    values = {
        "workspace": study / "ws", "comparison": study / "comparison",
        "review": study / "expert_review.json", "out": study / "paper", "pandoc": False, **changes,
    }  # fmt: skip
    return PaperConfig(**values)


def paper(study: Path, **changes: Any) -> str:
    settings = config(study, **changes)
    return draft(gather(settings)[0], settings.about)


def section(text: str, heading: str) -> str:
    level = heading.partition(" ")[0]
    rest = text.partition(f"\n{heading}\n")[2]
    return re.split(rf"\n#{{1,{len(level)}}} ", rest, maxsplit=1)[0]


def edit(file: Path, pointer: tuple[str | int, ...], value: Any) -> None:
    """Put a value into a JSON file; None takes the entry out."""
    data = json.loads(file.read_text("utf-8"))
    inner = data
    for key in pointer[:-1]:
        inner = inner[key]
    if value is None:
        del inner[pointer[-1]]
    else:
        inner[pointer[-1]] = value
    file.write_text(json.dumps(data), encoding="utf-8")


def test_every_number_of_the_results_is_linked_and_true(study):
    text = paper(study)
    for heading in RESULTS:
        assert untraced(section(text, heading)) == []
    (study / "paper").mkdir()
    assert wrong(text, study / "paper") == []
    # All sources were read.
    sources = section(text, "### Sources")
    for file in ("funnel.json", "training.json", "evaluation.json", "comparison.json",
                 "evaluation-2.json", "expert_review.json", "record.json"):  # fmt: skip
        assert file in sources


def test_a_changed_result_changes_the_paper_and_is_told(study):
    file = study / "ws/artifacts/evaluation-3f2a/evaluation.json"
    before = paper(study)
    edit(file, ("metrics", 5, "trained", "estimate"), 0.2345)
    after = paper(study)
    assert "23.4% (23.8 to 35.8)" not in before
    assert "23.4% (23.8 to 35.8)" in section(after, "## Results")
    assert "`evaluation-3f2a/evaluation.json` is not as it was when it was made" in after
    assert "is not as it was" not in before
    assert "evaluation.json was changed since it was made." in plan_paper(config(study))


def test_a_removed_measure_is_not_measured(study):
    file = study / "ws/artifacts/evaluation-3f2a/evaluation.json"
    assert "Safe answers: better after training" in section(paper(study), "## Abstract")
    edit(file, ("metrics", 0), None)
    text = paper(study)
    assert "Safe answers: not measured." in section(text, "## Abstract")
    assert "| Safe answers | not measured | not measured |" in section(text, "## Results")
    assert re.search(r"- Not measured: .*Safe answers", section(text, "## Limitations"))


def test_a_removed_number_is_not_measured(study):
    file = study / "ws/artifacts/training-3f2a/training.json"
    edit(file, ("train_loss",), None)
    edit(file, ("validation_before",), None)
    text = section(paper(study), "## Results")
    assert "last training loss: not measured." in text
    assert "| reward margin | not measured | [0.3914](#n" in text


@pytest.mark.parametrize(
    ("gone", "heading", "told"),
    [
        ("ws/artifacts/training-3f2a/training.json", "### Training", "no training was at hand"),
        ("ws/artifacts/pairs-3f2a", "### Preference data", "no preference data were at hand"),
        ("ws/artifacts/evaluation-3f2a", "### Evaluation", "no evaluation was at hand"),
    ],
)
def test_a_removed_result_is_not_measured(study, gone, heading, told):
    assert told not in paper(study)
    path = study / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = paper(study)
    assert f"Not measured: {told}." in section(text, "## Results")
    assert heading in text
    assert untraced(section(text, "## Results")) == []


def test_without_comparison_and_review_they_are_not_measured(study):
    text = paper(study, comparison=None, review=None)
    assert "Not measured: no comparison" in section(text, "### Other models")
    assert "Not measured: a trend" in section(text, "### Over model size")
    assert "Not measured: no expert review" in section(text, "### Expert review")
    with pytest.raises(DataError, match="there is no such file"):
        paper(study, comparison=study)


def test_methods_are_the_settings_that_were_used(study):
    text = section(paper(study), "## Methods")
    assert "LoRA" in text
    assert re.search(r"\| `generation\.temperature` \| \[0\.7\]\(#n\d+\) \|", text)
    assert "| `patience` | unset |" in text
    assert "whose principles are: Emptiness" in text
    edit(study / "ws/artifacts/evaluation-3f2a/record.json", ("inputs", "constitution"), "other")
    assert "known by its fingerprint only" in section(paper(study), "## Methods")


def test_only_works_that_are_cited_are_listed(study):
    text = paper(study)
    cited = set(re.findall(r"\]\(#(ref-\w+)\)", text))
    assert cited == set(re.findall(r'id="(ref-\w+)"', text))
    assert {"ref-laukkonen2025", "ref-bai2022", "ref-rafailov2023", "ref-hu2021"} <= cited
    assert "arXiv 2504.15125" in section(text, "## References")


def test_numbers_lead_to_the_run_and_the_command_that_made_them(study):
    uri = f"sqlite:///{study / 'mlflow.db'}"
    tracking = Tracking(uri, "ccai", study / "ws")
    with tracking.run("poc", tags={"command": "python -m flows.poc --max-pairs 7"}) as flow:
        tags = {"artifact": "evaluation-3f2a"}
        with tracking.run("evaluation", parent=flow, tags=tags) as run:
            made = run.id
    tracking.close()
    summary = write_paper(config(study, tracking_uri=uri))
    assert summary.made["paper"] == str(study / "paper" / "paper.md")
    text = (study / "paper" / "paper.md").read_text("utf-8")
    (row,) = [r for r in section(text, "### Sources").splitlines() if "3f2a/evaluation.json" in r]
    assert f"`{made}` | `python -m flows.poc --max-pairs 7` |" in row
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert {"figures/curve.svg", "figures/forest.svg"} <= set(pictures)
    assert all((study / "paper" / name).is_file() for name in pictures)


def test_pandoc_makes_what_it_can_and_its_failure_is_told(study, tmp_path, monkeypatch):
    (tmp_path / "paper.md").write_text("# T\n", encoding="utf-8")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert convert(tmp_path / "paper.md") == ({}, ["No LaTeX and no PDF: pandoc is not installed."])
    program = tmp_path / "pandoc"
    program.write_text("#!/bin/sh\necho no such reader >&2\nexit 3\n", encoding="utf-8")
    program.chmod(0o755)
    with pytest.raises(ArtifactError, match="no such reader"):
        convert(tmp_path / "paper.md")


@pytest.mark.skipif(shutil.which("pandoc") is None, reason="pandoc is not installed")
def test_the_links_of_the_paper_are_links_in_latex(study):
    (study / "paper.md").write_text(paper(study), encoding="utf-8")
    made, _ = convert(study / "paper.md")
    latex = made["latex"].read_text("utf-8")
    targets = set(re.findall(r"\\hyperref\[([ns]\d+|ref-\w+)\]", latex))
    assert targets
    assert targets <= set(re.findall(r"\\label\{([^}]+)\}", latex))
