"""Where a finished PoC came from, told from what it left behind."""

from __future__ import annotations

import re
import shlex
import shutil
from xml.etree import ElementTree

import pytest

from ccai_core.errors import ArtifactError
from flows.cli import parse
from flows.config import PoCConfig
from infra.lineage import main
from infra.lineage_again import plan_again
from infra.lineage_draw import drawing
from infra.lineage_trace import Node, trace
from infra.origin import Origin, find_origin, store_of


@pytest.fixture
def copied(finished, tmp_path):
    """A workspace of one's own to do harm to."""
    return shutil.copytree(finished.workspace, tmp_path / "ws")


def folder(workspace, kind):
    (found,) = (workspace / "artifacts").glob(f"{kind}-*")
    return found


def test_a_report_leads_down_to_model_constitution_prompts_and_commit(finished, capsys):
    assert main([str(finished.workspace / "report.html"), "--verify"]) == 0
    said = capsys.readouterr().out
    for kind in ("evaluation", "training", "pairs"):
        assert f"{kind} {folder(finished.workspace, kind).name}" in said
    origin = find_origin(store_of(folder(finished.workspace, "pairs")), "pairs-x")
    assert origin is None
    origin = find_origin(
        store_of(folder(finished.workspace, "pairs")), folder(finished.workspace, "pairs").name
    )
    assert f"code {origin.commit}" in said
    assert re.search(r"model tiny@\w+", said)
    # Long lines are cut.
    assert f"read from {finished.values['constitution']}"[:50] in said
    assert "source scenarios, Apache-2.0" in said


def test_names_paths_inside_and_mlflow_runs_lead_to_the_same(finished):
    training = folder(finished.workspace, "training")
    origin = find_origin(store_of(training), training.name)
    for thing in (str(training), str(training / "model"), training.name, training.name[:14]):
        assert trace(thing, finished.workspace).name == training.name
    of_run = trace(origin.run_id, finished.workspace)
    assert [each.name for each in of_run.parents] == [training.name]


def test_what_is_gone_or_was_changed_is_said(copied, capsys):
    model = folder(copied, "training") / "model" / "config.json"
    text = model.read_text("utf-8")
    model.write_text(text[:-1] + " ", encoding="utf-8")  # the same length
    shutil.rmtree(folder(copied, "pairs"))
    assert main([str(copied / "report.html")]) == 1
    said = capsys.readouterr().out
    assert re.search(r"pairs pairs-\w+\n\W+! gone: it is not in", said)
    assert "not as it was written" not in said
    assert main([str(copied / "report.html"), "--verify"]) == 1
    assert "! not as it was written: model/config.json" in capsys.readouterr().out


def test_without_its_runs_the_command_is_said_to_be_unknown(copied, capsys, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (copied / "mlflow.db").unlink()
    assert main([str(folder(copied, "pairs")), "--reproduce"]) == 2
    heard = capsys.readouterr()
    assert "its command is not known" in heard.out
    assert "--tracking-uri" in heard.err


def test_nothing_of_that_name(finished, capsys):
    assert main(["pears-12", "--workspace", str(finished.workspace)]) == 2
    assert "is no path, no run and no artifact" in capsys.readouterr().err


def test_the_commands_to_make_it_again_are_those_that_made_it(finished, tmp_path):
    node = trace(str(finished.workspace / "report.html"), finished.workspace)
    (words,) = plan_again(node).commands
    assert words[:3] == ("python", "-m", "flows.poc")
    assert parse(PoCConfig, "poc", "", list(words[3:]))[0] == finished.config
    (moved,) = plan_again(node, tmp_path / "again").commands
    config = parse(PoCConfig, "poc", "", list(moved[3:]))[0]
    assert config.workspace == tmp_path / "again"
    assert config.model_copy(update={"workspace": finished.config.workspace}) == finished.config


def test_two_commands_find_each_other_in_the_new_workspace(tmp_path):
    def made(name, command, *parents):
        return Node("x", name, parents=parents, origin=Origin("", "", command), content="c")

    first = made("a", "python -m flows.preference_data --workspace runs/old")
    second = made(
        "b", "python -m flows.training --pairs runs/old/artifacts/a --workspace runs/old", first
    )
    assert [shlex.join(words) for words in plan_again(second, tmp_path).commands] == [
        f"python -m flows.preference_data --workspace {tmp_path}",
        f"python -m flows.training --workspace {tmp_path} --pairs {tmp_path}/artifacts/a",
    ]


@pytest.mark.parametrize("command", ["rm -rf x", "python -m os", "sh -c 'python -m flows.poc'"])
def test_a_store_cannot_make_us_run_anything_but_flows(command, tmp_path):
    node = Node("x", "x-1", origin=Origin("", "", command), content="c")
    with pytest.raises(ArtifactError, match="No command of this project"):
        plan_again(node, tmp_path)


def test_drawings_hold_everything_and_no_markup_of_others(finished, tmp_path, capsys):
    node = trace(str(finished.workspace / "report.html"), finished.workspace)
    odd = Node("report", '<script>"x', parents=(node,), problems=("gone",))
    picture = drawing(odd, ".svg")
    told = {each.text or "" for each in ElementTree.fromstring(picture).iter()}
    assert "<script>" not in picture
    assert any("pairs-" in text for text in told)
    mermaid = drawing(odd, ".mmd")
    assert "<" not in mermaid
    assert len(re.findall(r"-->", mermaid)) >= 8
    target = tmp_path / "lineage.md"
    assert main([str(finished.workspace / "report.html"), "--draw", str(target)]) == 0
    assert target.read_text("utf-8").startswith("```mermaid\nflowchart LR\n")
    assert main([str(finished.workspace / "report.html"), "--draw", "lineage.png"]) == 2
    capsys.readouterr()


@pytest.mark.slow
def test_made_again_it_holds_the_very_same(finished, tmp_path, capsys, monkeypatch, server):
    monkeypatch.setenv("PREFECT_API_URL", server)
    thing = str(folder(finished.workspace, "training"))
    assert main([thing, "--reproduce", "--into", str(tmp_path / "again"), "--run"]) == 0
    assert "Made again: every artifact holds the very same." in capsys.readouterr().out
