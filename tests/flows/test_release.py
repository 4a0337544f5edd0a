"""A release: refused while gates are not passed, loads anywhere, and a changed byte is found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from ccai_core.dataset_info import SourceLicence, read_info
from ccai_core.errors import ArtifactError
from ccai_core.evaluation.results import EvaluationResult
from ccai_core.release.checksums import problems, write_checksums
from ccai_core.release.training_data import write_training_data
from flows.cli import parse
from flows.config import TrainingFlowConfig
from flows.release import main


def arguments(finished, out, **changed) -> list[str]:
    values = {
        "training": finished.artifact("training"),
        "evaluation": finished.artifact("evaluation"),
        "pairs": finished.artifact("pairs"),
        "constitution": finished.values["constitution"],
        "name": "tiny-ccai",
        "licence": "apache-2.0",
        "out": out,
        **changed,
    }
    return ["build", *(word for k, v in values.items() for word in (f"--{k}", str(v)))]


@pytest.fixture(scope="module")
def release(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("releases") / "tiny-ccai"
    assert main(arguments(finished, out, force="only a <test> | of the machinery")) == 0
    return out


def test_what_is_not_shown_to_be_good_needs_a_reason(finished, tmp_path, capsys):
    assert main(arguments(finished, tmp_path / "release")) == 2
    told = capsys.readouterr().err
    assert "MT-Bench: less than 5% lost: not measured" in told
    assert "--force 'the reason'" in told
    assert not (tmp_path / "release").exists()


def test_it_loads_with_plain_transformers_and_answers_as_before(finished, release):
    texts = AutoTokenizer.from_pretrained(release)("How are you?", return_tensors="pt")
    one, two = (
        AutoModelForCausalLM.from_pretrained(folder)(**texts).logits
        for folder in (release, finished.artifact("training") / "model")
    )
    assert torch.equal(one, two)
    assert AutoTokenizer.from_pretrained(release).chat_template


def test_the_card_has_the_reason_and_every_measure_with_its_interval(finished, release):
    card = ModelCard.load(release / "README.md")
    assert "Reason: only a &lt;test&gt; \\| of the machinery" in card.text
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "tiny"
    text = (finished.artifact("evaluation") / "evaluation.json").read_text("utf-8")
    measured = {m.id: m for m in EvaluationResult.model_validate_json(text).metrics if m.n}
    assert {entry.metric_type for entry in card.data.eval_results} == set(measured)
    for entry in card.data.eval_results:
        trained = measured[entry.metric_type].trained
        assert entry.metric_value == trained.estimate
        assert entry.metric_args["interval_95"] == [trained.low, trained.high]


def test_a_flipped_byte_a_lost_and_an_added_file_are_found(release, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(release, copy)
    assert main(["verify", str(copy)]) == 0
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (copy / "reproduce.sh").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"x")
    assert main(["verify", str(copy)]) == 2
    told = capsys.readouterr().err
    assert "model.safetensors: was changed" in told
    assert "reproduce.sh: is missing" in told
    assert "pytorch_model.bin: is not of this release" in told
    assert main(["push", str(copy), "--to", "me/tiny", "--dry-run"]) == 2


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_the_sums_are_those_of_sha256sum(release):
    checked = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=release, check=False)
    assert checked.returncode == 0


def test_a_signature_of_the_sums_is_no_file_that_was_added(tmp_path, capsys):
    (tmp_path / "a").write_text("a", encoding="utf-8")
    write_checksums(tmp_path)
    (tmp_path / "SHA256SUMS.sigstore.json").write_text("{}", encoding="utf-8")
    assert main(["verify", str(tmp_path)]) == 0
    assert "There is a signature" in capsys.readouterr().out
    assert main(["push", str(tmp_path), "--to", "me/tiny", "--dry-run"]) == 0
    assert "  SHA256SUMS.sigstore.json  2 bytes" in capsys.readouterr().out


def test_a_dry_run_of_a_push_names_every_file(release, capsys):
    assert main(["push", str(release), "--to", "me/tiny-ccai", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "me/tiny-ccai (private)" in told
    for file in release.rglob("*"):
        if file.is_file():
            assert f"  {file.relative_to(release)}  " in told
    assert main(["push", str(release), "--to", "no such name!", "--dry-run"]) == 2


def test_its_settings_are_those_it_was_trained_with(finished, release):
    given = ["--config", str(release / "configs" / "training.yaml"), "--pairs", "x"]
    settings, _ = parse(TrainingFlowConfig, "x", "", given)
    wanted = finished.config.training
    assert settings.training.model_dump() == wanted.model_dump()
    script = (release / "reproduce.sh").read_text("utf-8")
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0


@pytest.mark.slow
def test_its_script_makes_the_same_weights_again(finished, release, tmp_path):
    environment = os.environ | {
        "BASE_MODEL": str(finished.values["model"]),
        "WORKSPACE": str(tmp_path / "again"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        ["sh", "reproduce.sh"], cwd=release, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (weights,) = (tmp_path / "again" / "artifacts").glob("training-*/model/model.safetensors")
    assert weights.read_bytes() == (release / "model.safetensors").read_bytes()
    assert problems(release) == []


def test_texts_that_may_not_be_passed_on_are_ids(finished, tmp_path):
    pairs = finished.artifact("pairs")
    info = read_info(pairs)
    whole = tmp_path / "whole.jsonl"
    assert write_training_data(pairs, info, whole) == {"whole": info.total}
    for source in (
        SourceLicence(name="scenarios", licence="Apache-2.0", restricted=True),
        SourceLicence(name="scenarios"),
        SourceLicence(name="another", licence="MIT"),
    ):
        named = tmp_path / "named.jsonl"
        closed = info.model_copy(update={"sources": (source,)})
        assert write_training_data(pairs, closed, named) == {"ids only": info.total}
        for line in named.read_text("utf-8").splitlines():
            assert set(json.loads(line)) == {
                "prompt_id", "prompt_sha256", "source", "hazard", "principle",
            }  # fmt: skip


def test_what_does_not_belong_together_is_refused(finished, tmp_path, capsys):
    other = tmp_path / "other.md"
    shutil.copy(finished.values["constitution"], other)
    other.write_text(other.read_text("utf-8").replace("Two principles", "Others"), "utf-8")
    assert main(arguments(finished, tmp_path / "a", constitution=other, force="x")) == 2
    assert "rated by another constitution than 'Others'" in capsys.readouterr().err
    changed = tmp_path / "evaluation"
    shutil.copytree(finished.artifact("evaluation"), changed)
    (changed / "evaluation.json").write_text("{}", encoding="utf-8")
    assert main(arguments(finished, tmp_path / "b", evaluation=changed, force="x")) == 2
    assert "was changed since it was made (evaluation.json)" in capsys.readouterr().err
    assert main(arguments(finished, tmp_path, force="x")) == 2
    assert "is there already" in capsys.readouterr().err


def test_sums_that_are_damaged_are_no_sums(tmp_path):
    (tmp_path / "a").write_text("a", encoding="utf-8")
    assert write_checksums(tmp_path) == 1
    assert problems(tmp_path) == []
    (tmp_path / "SHA256SUMS").write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match="is damaged"):
        problems(tmp_path)
    with pytest.raises(ArtifactError, match="Name the folder of a release"):
        problems(tmp_path / "none")
