"""The supervised stage before DPO on a tiny Llama with random weights."""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from ccai_core import checkpoints, memory, sft, sft_trainer, training_run, training_weights
from ccai_core.dpo import train
from ccai_core.errors import ArtifactError, ConfigError, DataError, ModelError
from ccai_core.models import ModelRef, resolve_model
from ccai_core.prompts.scenarios import shipped_scenarios
from ccai_core.report import render_report
from ccai_core.sft import SftConfig, SftResult, fine_tune
from ccai_core.training_config import TrainingConfig
from ccai_core.training_data import columns, hold_out, read_pairs
from ccai_core.training_log import read_log
from tests.report_sample import sample
from tests.test_dpo import largest_difference, no_weights, pair, turn, weights, write
from tests.tiny_model import save_tiny_model
from tests.together import start_together

SMALL = SftConfig(
    epochs=2, batch_size=2, gradient_accumulation=2, learning_rate=1e-3, save_steps=3,
    validation_fraction=0.2, seed=3,
)  # fmt: skip
Tuned = tuple[SftResult, Path]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    # Sums are made in another order by another number of threads, and results are compared exactly.
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    corpus = [json.dumps(pair(i)) for i in range(20)]
    folder = tmp_path_factory.mktemp("models") / "tiny-chat"
    return resolve_model(str(save_tiny_model(folder, corpus, vocabulary=500, spread=0.02)))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "pairs.jsonl", [pair(i) for i in range(24)])


@pytest.fixture(scope="module")
def tuned(tiny: ModelRef, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    out = tmp_path_factory.mktemp("tuned")
    return fine_tune(SMALL, tiny, pairs, out, "cpu"), out


# --- what it makes --------------------------------------------------------------------------------


def test_the_loss_falls_on_answers_that_were_held_out(tuned: Tuned) -> None:
    result, _ = tuned
    before, after = result.validation_before, result.validation_after
    assert before is not None
    assert after is not None
    # Random weights: about as good as guessing.
    assert before.loss == pytest.approx(math.log(500), rel=0.1)
    assert after.loss < before.loss - 0.3
    assert after.accuracy > before.accuracy
    assert after.n == result.pairs_validation > 0


def test_the_model_loads_with_plain_transformers(tuned: Tuned, tiny: ModelRef) -> None:
    result, out = tuned
    model = AutoModelForCausalLM.from_pretrained(str(out / "model"))
    assert model.dtype == torch.float32
    assert model.config.use_cache is True
    assert weights(tiny.path).keys() == weights(out / "model").keys()
    for name in ("chat_template.jinja", "generation_config.json", "tokenizer.json"):
        assert (out / "model" / name).read_bytes() == (tiny.path / name).read_bytes()
    assert result.model.name == "tiny-chat-sft"
    assert result.model.revision == resolve_model(str(out / "model")).revision
    assert (result.base_model, result.model_path) == (tiny.identity, out / "model")


def nats_a_token(model: Any, tokenizer: Any, item: Any) -> float:
    def encode(turns: Any, more: bool) -> list[int]:
        return list(
            tokenizer.apply_chat_template(
                columns(turns, ()), tokenize=True, return_dict=True, add_generation_prompt=more
            )["input_ids"]
        )

    start = len(encode(item.prompt, True))
    ids = torch.tensor([encode((*item.prompt, *item.chosen), False)])
    with torch.no_grad():
        logprobs = model(ids).logits[0, :-1].log_softmax(-1)
    return -float(logprobs[start - 1 :].gather(1, ids[0, start:, None]).mean())


def test_validation_is_the_loss_of_the_answers_alone_computed_by_hand(
    tuned: Tuned, pairs: Path
) -> None:
    result, out = tuned
    tokenizer = AutoTokenizer.from_pretrained(str(out / "model"))
    model = AutoModelForCausalLM.from_pretrained(str(out / "model")).eval()
    _, held_out = hold_out(read_pairs(pairs), SMALL.validation_fraction)
    losses = [nats_a_token(model, tokenizer, item) for item in held_out]
    assert result.validation_after is not None
    assert result.validation_after.loss == pytest.approx(sum(losses) / len(losses), abs=1e-4)


def test_neither_the_prompt_nor_the_rejected_answer_is_learned(
    tiny: ModelRef, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(tiny.path))
    seen: list[dict[str, torch.Tensor]] = []
    step = sft_trainer.Trainer.training_step

    def watch(self: Any, model: Any, inputs: dict[str, torch.Tensor], *rest: Any) -> Any:
        seen.append({name: inputs[name].clone() for name in ("input_ids", "labels")})
        return step(self, model, inputs, *rest)

    monkeypatch.setattr(sft_trainer.Trainer, "training_step", watch)
    fine_tune(SMALL.model_copy(update={"epochs": 1}), tiny, pairs, tmp_path, "cpu")
    learned, read = set(), set()
    for batch in seen:
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            read.add(tokenizer.decode(ids, skip_special_tokens=True))
            learned.add(tokenizer.decode(labels[labels != -100]))
    training, _ = hold_out(read_pairs(pairs), SMALL.validation_fraction)
    # The end of the turn is learned with the answer, or the model would not end.
    assert learned == {f"{item.chosen[0].content}<|im_end|>\n" for item in training}
    assert not any("I do not know" in text for text in read)
    assert all("Question" in text for text in read)


def test_the_log_and_the_curve_tell_the_whole_run(tuned: Tuned) -> None:
    result, out = tuned
    entries = read_log(out / "training_log.jsonl")
    assert (entries[0]["event"], entries[-1]["event"]) == ("start", "end")
    assert [e["step"] for e in entries if e["event"] == "step"] == list(range(1, result.steps + 1))
    per_epoch = result.steps // SMALL.epochs
    assert [e["step"] for e in entries if e["event"] == "eval"] == [0, per_epoch, result.steps]
    assert {"loss", "token_accuracy", "learning_rate", "grad_norm"} <= set(entries[2])
    drawn = (out / "training_curve.svg").read_text()
    assert "Supervised stage" in drawn
    assert "margin" not in drawn


def test_a_report_tells_of_it(tuned: Tuned) -> None:
    result, _ = tuned
    page = render_report(sample(sft=result))
    assert f"First on the chosen answers alone: {result.steps} updates" in page
    assert "First on the chosen answers" not in render_report(sample())


def test_dpo_starts_from_it_and_prefers_against_it(
    tuned: Tuned, pairs: Path, tmp_path: Path
) -> None:
    config = TrainingConfig(epochs=1, learning_rate=1e-3, validation_fraction=0.2)
    result = train(config, tuned[0].model, pairs, tmp_path, "cpu")
    assert result.base_model == tuned[0].model.identity
    assert result.validation_before is not None
    assert result.validation_before.margin == 0
    assert result.model.name == "tiny-chat-sft-ccai"


def test_lora_is_merged_into_a_plain_model(tiny: ModelRef, pairs: Path, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"method": "lora", "lora_rank": 4, "learning_rate": 1e-2})
    result = fine_tune(config, tiny, pairs, tmp_path, "cpu")
    before, after = weights(tiny.path), weights(result.model_path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {n for n in before if "_proj" in n}
    assert result.validation_before is not None
    assert result.validation_after is not None
    assert result.validation_after.loss < result.validation_before.loss


def test_fewer_answers_at_once_change_nothing_else(
    tuned: Tuned, tiny: ModelRef, pairs: Path, tmp_path: Path
) -> None:
    one = SMALL.model_copy(update={"batch_size": 1, "gradient_accumulation": 4})
    result = fine_tune(one, tiny, pairs, tmp_path, "cpu")
    assert result.steps == tuned[0].steps
    assert largest_difference(tuned[1] / "model", result.model_path) < SMALL.learning_rate / 10


def test_memory_that_runs_out_halves_the_batch(
    tuned: Tuned, tiny: ModelRef, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = sft_trainer.Trainer.training_step

    def short_of_memory(self: Any, model: Any, inputs: Any, *rest: Any) -> Any:
        if len(inputs["input_ids"]) > 1 and self.state.global_step >= 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return step(self, model, inputs, *rest)

    monkeypatch.setattr(sft_trainer.Trainer, "training_step", short_of_memory)
    result = fine_tune(SMALL, tiny, pairs, tmp_path, "cpu")
    assert (result.batch_size, result.resumed_from) == (1, 3)
    assert largest_difference(tuned[1] / "model", result.model_path) < SMALL.learning_rate / 10


# --- again, interrupted, in use -------------------------------------------------------------------


def test_a_second_call_returns_at_once(
    tuned: Tuned, tiny: ModelRef, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, out = tuned
    assert SftResult.model_validate_json((out / "training.json").read_text()) == result
    monkeypatch.setattr(training_weights, "load_model", no_weights)
    monkeypatch.setattr(training_run, "load_tokenizer", no_weights)
    again = SMALL.model_copy(update={"save_steps": 50, "log_steps": 2})
    assert fine_tune(again, tiny, pairs, out, "cpu") == result


KILLED = """
import os, signal, sys, pickle, torch
from ccai_core import sft_trainer
from ccai_core.sft import fine_tune

torch.set_num_threads(1)

class Dies(sft_trainer.SftProgress):
    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 7:
            os.kill(os.getpid(), signal.SIGKILL)

sft_trainer.SftProgress = Dies
fine_tune(*pickle.loads(bytes.fromhex(sys.argv[1])))
"""


def curve(out: Path) -> list[tuple[Any, ...]]:
    entries = read_log(out / "training_log.jsonl")
    return [(e["event"], e["step"], e["loss"]) for e in entries if e["event"] in ("step", "eval")]


def test_a_killed_run_goes_on_to_the_very_same_weights(
    tuned: Tuned, tiny: ModelRef, pairs: Path, tmp_path: Path
) -> None:
    arguments = pickle.dumps((SMALL, tiny, pairs, tmp_path, "cpu")).hex()
    environment = {**os.environ, "PYTHONPATH": str(Path(sft.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == -9, done.stderr
    assert [c.name for c in checkpoints.sealed(tmp_path / "checkpoints")] == [
        "checkpoint-6", "checkpoint-3",
    ]  # fmt: skip
    result = fine_tune(SMALL, tiny, pairs, tmp_path, "cpu")
    assert result.resumed_from == 6
    assert largest_difference(tuned[1] / "model", tmp_path / "model") == 0
    assert result.model.revision == tuned[0].model.revision
    assert result.validation_before == tuned[0].validation_before
    assert curve(tmp_path) == curve(tuned[1])


def test_a_folder_belongs_to_one_run(tuned: Tuned, tiny: ModelRef, pairs: Path) -> None:
    other = SMALL.model_copy(update={"learning_rate": 2e-3})
    with pytest.raises(ArtifactError, match=r"learning_rate was 0\.001, is 0\.002"):
        fine_tune(other, tiny, pairs, tuned[1], "cpu")
    with pytest.raises(ArtifactError, match="holds another training run"):
        train(SMALL.as_training(), tiny, pairs, tuned[1], "cpu")


def test_a_folder_in_use_is_left_alone(tiny: ModelRef, pairs: Path, tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(ArtifactError, match="another process"),
    ):
        fine_tune(SMALL, tiny, pairs, tmp_path, "cpu")


# --- several processes, and DeepSpeed in one ------------------------------------------------------


def tune_tiny(model: str, pairs: str, out: str, settings: dict[str, Any]) -> None:
    """Be one of the processes."""
    config = SMALL.model_copy(update=settings)
    fine_tune(config, resolve_model(model), Path(pairs), Path(out), "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("zero", [0, 2, 3])
def test_two_processes_make_what_one_makes(
    tuned: Tuned, tiny: ModelRef, pairs: Path, tmp_path: Path, zero: int
) -> None:
    words = (tiny.path, pairs, tmp_path, {"ranks": 2, "zero": zero})
    running = start_together(2, "tests.test_sft:tune_tiny", *words)
    said = [each.communicate(timeout=300)[0] for each in running]
    assert [each.returncode for each in running] == [0, 0], "\n".join(said)
    assert largest_difference(tuned[1] / "model", tmp_path / "model") < 1e-5
    result = SftResult.model_validate_json((tmp_path / "training.json").read_text())
    assert result.steps == tuned[0].steps
    assert result.validation_after is not None
    assert tuned[0].validation_after is not None
    assert result.validation_after.loss == pytest.approx(tuned[0].validation_after.loss, abs=1e-4)


@pytest.mark.slow
def test_a_plan_may_bring_deepspeed_in(
    tuned: Tuned, tiny: ModelRef, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = memory.plan

    def offloading(*arguments: Any) -> memory.MemoryPlan:
        return plan(*arguments).model_copy(update={"zero": 2})

    monkeypatch.setattr(memory, "plan", offloading)
    result = fine_tune(SMALL, tiny, pairs, tmp_path, "cpu")
    assert checkpoints.sealed(tmp_path / "checkpoints" / "zero2-1")
    assert largest_difference(tuned[1] / "model", result.model_path) < 1e-5


# --- what cannot be done --------------------------------------------------------------------------


def test_without_epochs_there_is_nothing_to_do(tiny: ModelRef, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"epochs is 0.*Set it to 1"):
        fine_tune(SftConfig(), tiny, pairs, tmp_path, "cpu")


def test_held_out_prompts_are_refused_before_weights_are_loaded(
    tiny: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_weights, "load_model", no_weights)
    secret = next(prompt for prompt in shipped_scenarios() if prompt.split == "test")
    records = [pair(0), pair(2, prompt=turn("user", secret.text))]
    file = write(tmp_path / "pairs.jsonl", records)
    with pytest.raises(DataError):
        fine_tune(SMALL, tiny, file, tmp_path / "out", "cpu")


def test_unusable_pairs_are_refused_before_weights_are_loaded(
    tiny: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_weights, "load_model", no_weights)
    file = write(tmp_path / "pairs.jsonl", [pair(0), pair(2, chosen=turn("assistant", " "))])
    with pytest.raises(DataError, match="line 2: chosen is empty"):
        fine_tune(SMALL, tiny, file, tmp_path / "out", "cpu")
    with pytest.raises(DataError, match="cannot be read"):
        fine_tune(SMALL, tiny, tmp_path / "none.jsonl", tmp_path / "out", "cpu")


def test_over_long_answers_are_left_out_and_counted(
    tiny: ModelRef, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = pair(6, chosen=turn("assistant", "yes " * 200))
    file = write(tmp_path / "pairs.jsonl", [pair(0), pair(2), pair(4), long])
    config = SMALL.model_copy(update={"epochs": 1, "max_length": 150})
    result = fine_tune(config, tiny, file, tmp_path / "out", "cpu")
    assert (result.pairs_cut, result.pairs_train + result.pairs_validation) == (1, 3)
    assert "1 pairs left out with more than 150 tokens" in capsys.readouterr().out
    refuse = config.model_copy(update={"over_length": "error"})
    with pytest.raises(DataError, match="1 of 4 pairs have more than 150 tokens"):
        fine_tune(refuse, tiny, file, tmp_path / "other", "cpu")


def test_a_loss_that_is_no_number_stops_training_and_keeps_the_checkpoint(
    tiny: ModelRef, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_step_end(self: Any, args: Any, state: Any, control: Any, **known: Any) -> None:
        if state.global_step == 4:
            next(known["model"].parameters()).data[:] = math.inf

    monkeypatch.setattr(sft_trainer.SftProgress, "on_step_end", on_step_end)
    with pytest.raises(ModelError, match=r"loss became nan.*learning_rate.*: checkpoint-3"):
        fine_tune(SMALL, tiny, pairs, tmp_path, "cpu")
    assert not (tmp_path / "training.json").exists()


def test_half_precision_is_refused_on_cpu(tiny: ModelRef, pairs: Path, tmp_path: Path) -> None:
    half = SMALL.model_copy(update={"precision": "bf16"})
    with pytest.raises(ModelError, match="hardly learns"):
        fine_tune(half, tiny, pairs, tmp_path, "cpu")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"epochs": -1}, "greater than or equal to 0"),
        ({"learning_rate": 0}, "greater than 0"),
        ({"beta": 0.1}, "beta"),
        ({"ranks": 3}, "cannot be divided by 3 processes"),
        ({"offload": "optimizer"}, "set zero to 1, 2 or 3"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        SftConfig.model_validate(wrong)


def test_every_setting_has_a_description() -> None:
    for fields in (SftConfig.model_fields, SftResult.model_fields):
        assert [name for name, field in fields.items() if not field.description] == []
