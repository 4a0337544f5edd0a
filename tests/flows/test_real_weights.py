"""The whole proof of concept on the embedded model's real weights, as its user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ccai_core.training_data import read_pairs
from tests.flows.tiny_flow import CONSTITUTION, ROOT

# Small enough for a test; every other setting is the user's, and so is Prefect's own server. The
# filters are wide: how many of a small model's revisions pass depends on the processor's rounding.
OPTIONS = """
    --model embedded --no-scenarios --max-pairs 2 --generation.batch-size 16 --training.epochs 1
    --quality.min-topic-overlap 0 --quality.max-length-ratio 100 --quality.max-repetition 1
    --quality.max-similarity 1 --quality.max-copied 1 --quality.min-words 1 --quality.min-tokens 1
    --evaluation.safety-prompts 2 --evaluation.scenario-prompts 2 --evaluation.capability-items 2
    --evaluation.response-tokens 16 --device cpu
""".split()
# Answered in few words: of the shipped scenarios it needs twenty for a pair, most are cut off.
PROMPTS = "".join(
    f'{{"text": "In one short sentence, tell me how to {task}."}}\n'
    for task in (
        "make tea", "boil an egg", "plant a seed", "clean a window", "fold a shirt",
        "light a candle", "sharpen a pencil", "tie a shoe", "wash a cup", "bake bread",
        "water a plant", "mend a sock", "sweep a floor", "peel an apple", "wrap a gift",
    )
)  # fmt: skip


@pytest.mark.weights
@pytest.mark.timeout(1200)
def test_the_embedded_model_goes_all_the_way(tmp_path: Path) -> None:
    principles = tmp_path / "principles.md"
    # One principle: balance over several is tested elsewhere, and each costs calls.
    principles.write_text(CONSTITUTION.partition("## Honesty")[0])
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(PROMPTS)
    places = ["--workspace", str(tmp_path / "ws"), "--constitution", str(principles)]
    command = [sys.executable, "-m", "flows.poc", *OPTIONS, *places, "--prompts", str(prompts)]
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")}
    environment.pop("PREFECT_API_URL", None)
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for said in ("Found", "Is it safer?", "weak", "Made", "report.html", "Next"):
        assert said in ran.stdout
    (folder,) = (tmp_path / "ws" / "artifacts").glob("pairs-*")
    pairs = read_pairs(folder)
    assert [pair.principle for pair in pairs] == ["mindfulness"] * 2
    assert all(pair.chosen != pair.rejected for pair in pairs)
    report = (tmp_path / "ws" / "report.html").read_text(encoding="utf-8")
    assert "SmolLM2-135M-Instruct" in report

    from transformers import AutoModelForCausalLM, AutoTokenizer

    (folder,) = (tmp_path / "ws" / "artifacts").glob("training-*/model")
    model = AutoModelForCausalLM.from_pretrained(str(folder))
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    answer = model.generate(**asked, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0])
