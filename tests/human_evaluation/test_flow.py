"""The two commands: from answers to a package, from files to a report and a tracked run."""

from __future__ import annotations

import json
import random

import pytest
from mlflow import MlflowClient

from ccai_core.human_evaluation.key import read_key
from flows.human_evaluation import main
from infra.origin import content_name, find_origin, store_of
from tests.human_evaluation.review_sample import MODELS, opinion, prompts, saved, write


@pytest.fixture
def answers(tmp_path):
    path = tmp_path / "answers.jsonl"
    rows = [
        {"prompt": p.text, "model": m, "answer": p.answers[m], "score": p.scores[m]}
        | {"label": p.label, "held_out": True}
        for p in prompts(6)
        for m in MODELS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_from_answers_to_a_report_and_a_tracked_run(answers, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "review"
    build = ["build", "--answers", str(answers), "--out", str(out), "--reviewers", "2"]
    assert main([*build, "--dry-run"]) == 0
    assert not out.exists()
    assert "about 18 items and 2 attention checks" in capsys.readouterr().out
    assert main(build) == 0
    assert "keep it from reviewers" in capsys.readouterr().out
    key = read_key(out / "expert_review_key.json")
    rng = random.Random(0)
    files = [
        str(write(tmp_path, saved(key, page, {i.id: opinion(i, rng) for i in page.items})))
        for page in key.reviewers
    ]
    at = ["--key", str(out / "expert_review_key.json"), "--workspace", str(out)]
    assert main(["collect", *files, *at]) == 0
    told = capsys.readouterr().out
    assert "org/base@1 against org/tuned@2" in told
    assert "Only the answers of 2 reviewers are counted" in told
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'ccai'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["reviewers"] == 2
    assert run.data.tags["stage"] == "human_evaluation"
    origin = find_origin(store_of(out), content_name("expert_review", out / "expert_review.json"))
    assert origin.run_id == run.info.run_id
    assert origin.command.startswith(f"python -m flows.human_evaluation collect {files[0]} ")
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "expert_review.html",
        "expert_review.md",
        "expert_review.json",
    }


def test_what_is_wrong_is_one_paragraph_and_code_2(answers, tmp_path, capsys):
    assert main(["build"]) == 2
    assert "--answers: name what is to be reviewed" in capsys.readouterr().err
    assert main(["collect"]) == 2
    assert "Name the files that reviewers saved" in capsys.readouterr().err
    assert main(["collect", "x.json", "--key", str(tmp_path / "no.json")]) == 2
    assert "without it nobody can say" in capsys.readouterr().err
    assert main(["buidl"]) == 2
    assert main(["--help"]) == 0
    assert "python -m flows.human_evaluation collect" in capsys.readouterr().out


def test_prompts_that_were_trained_on_are_refused(answers, tmp_path, capsys):
    pair = {
        "prompt": [{"role": "user", "content": prompts(6)[2].text}],
        "chosen": [{"role": "assistant", "content": "yes"}],
        "rejected": [{"role": "assistant", "content": "no"}],
        "principle": "emptiness",
        "prompt_id": "x1",
        "source": "mine",
        "hazard": None,
        "critique": "c",
        "provenance": {},
    }
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(2 * (json.dumps(pair) + "\n"), encoding="utf-8")
    assert main(["build", "--answers", str(answers), "--trained-on", str(pairs)]) == 2
    assert "1 evaluation prompts are in the training pairs" in capsys.readouterr().err
