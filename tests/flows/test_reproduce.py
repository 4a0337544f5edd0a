"""A release made again: its recipe is the one it was made by, and every number is compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ccai_core.dataset_files import text_hash
from ccai_core.errors import DataError
from ccai_core.evaluation.results import EvaluationResult, Interval
from ccai_core.prompts.scenarios import shipped_scenarios
from ccai_core.records import ArtifactRecord
from ccai_core.release.checksums import write_checksums
from ccai_core.release.needed import refuse_other_pairs, refuse_other_prompts
from ccai_core.release.parts import read_parts
from ccai_core.release.recipe import read_recipe
from ccai_core.release.reproduction import Reproduction, compare_numbers, reproduction_page
from ccai_core.sft_config import SftConfig
from flows.cli import run_command
from flows.release import main as release_main
from flows.release_config import ReleaseBuildConfig
from flows.release_recipe import recipe_of
from flows.reproduce import reproduce
from flows.reproduce_config import ReproduceConfig
from flows.reproduce_plan import plan_reproduction
from tests.report_sample import evaluation


def command(*arguments: object) -> int:
    return run_command(
        ReproduceConfig, reproduce, plan_reproduction, prog="reproduce", about="",
        arguments=[str(each) for each in arguments],
    )  # fmt: skip


@pytest.fixture(scope="module")
def release(finished, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("releases") / "tiny-ccai"
    given = {
        "training": finished.artifact("training"),
        "evaluation": finished.artifact("evaluation"),
        "pairs": finished.artifact("pairs"),
        "constitution": finished.values["constitution"],
        "name": "tiny-ccai",
        "licence": "apache-2.0",
        "force": "a test",
        "out": out,
    }
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    assert release_main(["build", *words]) == 0
    return out


def changed(release: Path, folder: Path, name: str, text: str) -> Path:
    shutil.copytree(release, folder)
    (folder / name).write_text(text, encoding="utf-8")
    write_checksums(folder)
    return folder


def result_of(release: Path) -> EvaluationResult:
    text = (release / "evaluation" / "evaluation.json").read_text("utf-8")
    return EvaluationResult.model_validate_json(text)


def test_the_recipe_is_the_one_that_the_model_was_made_by(finished, release):
    recipe = read_recipe(release)
    assert recipe.training == finished.config.training
    assert recipe.evaluation == finished.config.evaluation
    assert recipe.generation is not None
    made = recipe.generation.preferences.model_dump(exclude={"generation": {"batch_size"}})
    wanted = finished.config.preferences.model_dump(exclude={"generation": {"batch_size"}})
    assert made == wanted
    assert recipe.evaluated is not None
    assert recipe.evaluated.scenarios


def test_a_supervised_stage_is_part_of_the_recipe(finished):
    folders = [finished.artifact(kind) for kind in ("training", "evaluation", "pairs")]
    parts = read_parts(*folders, finished.values["constitution"])
    stage = ArtifactRecord(
        kind="sft", fingerprint="1", created="now", files={},
        inputs={"model": "base@1", "config": SftConfig(epochs=2).model_dump(exclude={"ranks"})},
    )  # fmt: skip
    training, evaluated, pairs = folders
    config = ReleaseBuildConfig(
        training=training, evaluation=evaluated, pairs=pairs, name="x", licence="mit"
    )
    recipe, unknown = recipe_of(config, parts._replace(sft_record=stage))
    assert recipe.sft == SftConfig(epochs=2)
    assert recipe.base_model == "base@1"
    assert unknown == ()


def test_by_its_recipe_the_very_same_is_found_again(finished, release, capsys):
    # In the workspace where it was made: were one setting another, something would be made anew.
    before = sorted((finished.workspace / "artifacts").iterdir())
    code = command(
        release, "--model", finished.values["model"], "--pairs", finished.artifact("pairs"),
        "--workspace", finished.workspace, "--device", "cpu",
    )  # fmt: skip
    told = capsys.readouterr().out
    assert code == 0, told
    assert "are reproduced within the release's intervals, 0 are not, 0 could" in told
    assert sorted((finished.workspace / "artifacts").iterdir()) == before
    made = Reproduction.model_validate_json(
        (finished.workspace / "reproduction.json").read_text("utf-8")
    )
    measured = result_of(release).metrics
    assert len(made.numbers) >= 3 * len(measured)
    page = (finished.workspace / "reproduction.html").read_text("utf-8")
    assert "<script" not in page
    assert all(metric.title in page for metric in measured)


@pytest.mark.slow
def test_a_number_outside_of_its_interval_ends_with_1_and_is_named(
    finished, release, tmp_path, capsys
):
    result = result_of(release)
    first = result.metrics[0].model_copy(
        update={"trained": Interval(estimate=9.0, low=8.0, high=10.0)}
    )
    lying = result.model_copy(update={"metrics": (first, *result.metrics[1:])})
    other = changed(
        release, tmp_path / "other", "evaluation/evaluation.json", lying.model_dump_json()
    )
    code = command(
        other, "--model", finished.values["model"], "--pairs", finished.artifact("pairs"),
        "--workspace", finished.workspace, "--device", "cpu",
    )  # fmt: skip
    told = capsys.readouterr().out
    assert code == 1, told
    assert f"not reproduced: {first.title}, after." in " ".join(told.split())


def test_a_dry_run_says_what_and_how_much_and_makes_nothing(release, finished, tmp_path, capsys):
    workspace = tmp_path / "ws"
    arguments = (release, "--model", finished.values["model"], "--workspace", workspace)
    assert command(*arguments, "--dry-run") == 0
    told = capsys.readouterr().out
    pairs = len((release / "training_data.jsonl").read_text("utf-8").splitlines())
    assert f"pairs       {pairs}: " in told
    assert "training    about" in told
    assert "evaluation  4 prompts for safety" in told
    assert not workspace.exists()


def test_what_was_changed_is_not_made_again(release, finished, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(release, copy)
    (copy / "configs" / "recipe.json").write_text("{}", encoding="utf-8")
    assert command(copy, "--model", finished.values["model"], "--dry-run") == 2
    assert "configs/recipe.json: was changed" in capsys.readouterr().err


def test_a_model_that_was_a_folder_must_be_named(release, capsys):
    assert command(release, "--dry-run") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "--model: the recipe's model is tiny@" in told
    assert "--model FOLDER" in told


def withheld(rows: list[dict], text: str, source: str) -> str:
    """Return the rows as a release has them whose prompts may not be passed on."""
    return "".join(
        json.dumps(
            {
                "prompt_id": row["prompt_id"],
                "prompt_sha256": text_hash(text or row["prompt"][-1]["content"]),
                "source": source,
                "hazard": None,
                "principle": row["principle"],
            }
        )
        + "\n"
        for row in rows
    )


def test_withheld_pairs_say_which_file_to_give(release, finished, tmp_path, capsys):
    rows = [json.loads(line) for line in (release / "training_data.jsonl").open(encoding="utf-8")]
    unknown = tmp_path / "unknown.jsonl"
    unknown.write_text(withheld(rows, "?", "ailuminate-practice"), encoding="utf-8")
    with pytest.raises(DataError) as missing:
        refuse_other_prompts(unknown, shipped_scenarios())
    assert f"{len(rows)} of 'ailuminate-practice' (AILuminate" in str(missing.value)
    assert "--prompts FILE" in str(missing.value)
    with pytest.raises(DataError, match="are not the pairs that the release was trained on"):
        refuse_other_pairs(unknown, finished.artifact("pairs"))
    # Whoever has the prompts generates the pairs again; whoever has the pairs trains on them.
    known = changed(release, tmp_path / "b", "training_data.jsonl", withheld(rows, "", "scenarios"))
    refuse_other_pairs(known / "training_data.jsonl", finished.artifact("pairs"))
    assert command(known, "--model", finished.values["model"], "--dry-run") == 0
    assert "pairs       12 from about" in capsys.readouterr().out


def test_prompt_files_are_known_by_their_content(release, finished, tmp_path, capsys):
    recipe = json.loads((release / "configs" / "recipe.json").read_text("utf-8"))
    recipe["evaluated"]["prompts"] = [{"name": "practice.csv", "content": "0" * 64}]
    other = changed(release, tmp_path / "a", "configs/recipe.json", json.dumps(recipe))
    assert command(other, "--model", finished.values["model"], "--dry-run") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "practice.csv (content 0000000000000000)" in told
    recipe["evaluated"] = {"prompts": [], "scenarios": True}
    recipe["evaluated_hash"] = "0"
    other = changed(release, tmp_path / "b", "configs/recipe.json", json.dumps(recipe))
    assert command(other, "--model", finished.values["model"], "--dry-run") == 2
    assert "chose from other prompts than these" in capsys.readouterr().err


def test_numbers_are_compared_with_the_released_intervals():
    released = evaluation()
    same = compare_numbers(released, released)
    assert {number.outcome for number in same} == {"reproduced"}
    judged = next(metric for metric in released.metrics if metric.judged)
    other = released.model_copy(
        update={
            "judge": released.judge.model_copy(update={"model": "another@1"}),
            "metrics": released.metrics[1:],
        }
    )
    gone = released.metrics[0].title
    found = compare_numbers(released, other)
    assert {n.why for n in found if n.name == gone} == {"It was not measured this time."}
    if judged.title != gone:
        assert all(n.outcome == "not measurable" for n in found if n.name == judged.title)
    far = released.metrics[0].model_copy(
        update={"trained": Interval(estimate=9.0, low=8.0, high=10.0)}
    )
    lying = released.model_copy(update={"metrics": (far, *released.metrics[1:])})
    off = [n for n in compare_numbers(lying, released) if n.outcome != "reproduced"]
    assert [(n.name, n.which, n.outcome) for n in off] == [(far.title, "after", "not reproduced")]
    made = Reproduction(release="r", created="now", command="c", numbers=tuple(off))
    assert not made.passed
    page = reproduction_page(
        Reproduction(release="r", created="now", command="c", numbers=found, notes=("<b>",))
    )
    assert "&lt;b&gt;" in page.html()
    assert "Not measurable" in page.markdown()


@pytest.mark.slow
def test_in_a_workspace_of_its_own_a_release_comes_out_the_same(
    finished, release, tmp_path, capsys
):
    code = command(
        release, "--model", finished.values["model"], "--pairs", finished.artifact("pairs"),
        "--workspace", tmp_path / "ws", "--device", "cpu",
    )  # fmt: skip
    told = capsys.readouterr().out
    assert code == 0, told
    kinds = {each.name.partition("-")[0] for each in (tmp_path / "ws" / "artifacts").iterdir()}
    assert kinds == {"training", "evaluation"}


@pytest.mark.slow
def test_pairs_are_made_again_as_well(finished, release, tmp_path, capsys):
    code = command(
        release, "--model", finished.values["model"], "--workspace", tmp_path / "ws",
        "--device", "cpu", "--generate",
    )  # fmt: skip
    told = capsys.readouterr().out
    # A CPU that has bfloat16 makes other pairs in it whenever batches are others: with a dozen of
    # them some numbers differ by more than their intervals.
    assert code in {0, 1}, told
    assert "numbers are reproduced within the release's intervals" in " ".join(told.split())
    kinds = {each.name.partition("-")[0] for each in (tmp_path / "ws" / "artifacts").iterdir()}
    assert kinds == {"pairs", "training", "evaluation"}
