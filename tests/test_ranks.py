"""Several processes train one model: they agree, and get what one process gets."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from ccai_core import checkpoints
from ccai_core.deepspeed_settings import deepspeed_settings
from ccai_core.dpo import train
from ccai_core.errors import ConfigError
from ccai_core.models import resolve_model
from ccai_core.ranks import Ranks, this_rank
from ccai_core.training_config import TrainingConfig
from ccai_core.training_log import read_log
from tests.tiny_model import save_tiny_model
from tests.together import start_together

# Eight updates of four pairs.
SETTINGS: dict[str, Any] = {
    "epochs": 2, "batch_size": 1, "gradient_accumulation": 4, "learning_rate": 1e-3,
    "save_steps": 2, "validation_fraction": 0.2, "seed": 3,
}  # fmt: skip
Place = tuple[Path, Path]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A tiny model and pairs."""
    root = tmp_path_factory.mktemp("together")
    words = [
        f"Question {n}: how should I act? With care, in the way {n} of a friend." for n in range(9)
    ]
    model = save_tiny_model(root / "tiny", words, vocabulary=400, spread=0.02)
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Question {n // 2}: how should I act?"}],
            "chosen": [{"role": "assistant", "content": f"With care, in the way {n} of a friend."}],
            "rejected": [{"role": "assistant", "content": f"No. I do not know {n}."}],
            "principle": "care", "prompt_id": f"q{n // 2}", "source": "test", "critique": "Curt.",
            "provenance": {},
        }
        for n in range(20)
    ]  # fmt: skip
    pairs = root / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return model, pairs


@pytest.fixture(scope="module")
def alone(place: Place, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The weights that one process makes."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("alone")
    model, pairs = place
    config = TrainingConfig.model_validate(SETTINGS)
    made = train(config, resolve_model(str(model)), pairs, out, "cpu")
    return load_file(made.model_path / "model.safetensors")


def together(place: Place, out: Path, **settings: Any) -> list[str]:
    """Train with two processes to the end; returns what they printed."""
    words = (*place, out, {**SETTINGS, "ranks": 2, **settings})
    running = start_together(2, "tests.together:train_tiny", *words)
    said = [each.communicate(timeout=180)[0] for each in running]
    assert [each.returncode for each in running] == [0, 0], "\n".join(said)
    return said


def assert_same(out: Path, weights: dict[str, Any]) -> None:
    made = load_file(out / "model" / "model.safetensors")
    assert made.keys() == weights.keys()
    assert max(float((made[name] - weights[name]).abs().max()) for name in made) <= 1e-6


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


# --- agreeing


def test_what_the_first_makes_is_known_to_all() -> None:
    running = start_together(2, "tests.together:by_first", True)
    assert [each.communicate(timeout=60)[0].strip() for each in running] == ["made by 0 [0, 1]"] * 2


def test_an_error_of_the_first_ends_all_and_is_reported_once() -> None:
    running = start_together(2, "tests.together:by_first", False)
    first, second = (each.communicate(timeout=60)[0] for each in running)
    assert "DataError: cannot be made" in first
    assert "Error" not in second
    # torch may abort a process that ends with a group of others open: it failed either way.
    assert running[0].returncode != 0
    assert running[1].returncode == 0


def test_a_process_alone_needs_no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert this_rank() == Ranks(0, 0, 1)
    assert Ranks().by_first(lambda: 3) == 3
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ConfigError, match="WORLD_SIZE"):
        this_rank()


# --- training


@pytest.mark.slow
def test_zero_3_goes_on_after_a_kill_and_makes_what_one_process_makes(
    place: Place, alone: dict[str, Any], tmp_path: Path
) -> None:
    words = (*place, tmp_path, {**SETTINGS, "ranks": 2, "zero": 3})
    running = start_together(2, "tests.together:train_tiny", *words)
    # Processes that wait for each other at every layer crawl where others want the cores too.
    sealed = functools.partial(checkpoints.sealed, tmp_path / "checkpoints" / "zero3-2")
    wait_for(lambda: sealed() or running[0].poll() is not None, seconds=400)
    assert sealed(), running[0].communicate()[0]
    running[1].kill()
    # The other one notices, and leaves nothing half-made.
    assert running[0].wait(60) != 0
    said = together(place, tmp_path, zero=3)
    assert "resumed from None" not in said[0]
    assert_same(tmp_path, alone)
    log = read_log(tmp_path / "training_log.jsonl")
    assert [e["step"] for e in log if e["event"] == "step"] == list(range(1, 9)), "by one process"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        *(
            pytest.param(settings, marks=pytest.mark.slow)
            for settings in (
                {"zero": 1},
                {"zero": 2},
                {"zero": 2, "offload": "optimizer"},
                {"zero": 3, "offload": "all"},
            )
        ),
    ],
    ids=str,
)
def test_every_way_to_divide_makes_what_one_process_makes(
    place: Place, alone: dict[str, Any], tmp_path: Path, settings: dict[str, Any]
) -> None:
    together(place, tmp_path, **settings)
    assert_same(tmp_path, alone)


@pytest.mark.slow
@pytest.mark.parametrize("zero", [0, 3])
def test_adapters_are_merged_wherever_they_were(place: Place, tmp_path: Path, zero: int) -> None:
    plain = {"method": "lora", "lora_dropout": 0.0}
    model, pairs = place
    one = train(
        TrainingConfig.model_validate({**SETTINGS, **plain}), resolve_model(str(model)), pairs,
        tmp_path / "one", "cpu",
    )  # fmt: skip
    together(place, tmp_path / "two", zero=zero, **plain)
    assert_same(tmp_path / "two", load_file(one.model_path / "model.safetensors"))


def test_as_many_processes_as_were_said_have_to_be_there(place: Place, tmp_path: Path) -> None:
    model, pairs = place
    config = TrainingConfig.model_validate({**SETTINGS, "nodes": 2})
    with pytest.raises(ConfigError, match=r"nodes 2 x ranks 1 = 2 processes, and 1 were started"):
        train(config, resolve_model(str(model)), pairs, tmp_path, "cpu")


# --- settings


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ({"ranks": 3}, "gradient_accumulation 4 cannot be divided by 3 processes"),
        ({"offload": "optimizer"}, "set zero to 1, 2 or 3"),
        ({"offload": "all", "zero": 2}, "needs zero 3"),
    ],
)
def test_what_does_not_go_together_is_said(wrong: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValidationError, match=advice):
        TrainingConfig.model_validate({**SETTINGS, **wrong})


def test_deepspeeds_settings_follow_ours() -> None:
    config = TrainingConfig(
        batch_size=2, gradient_accumulation=16, nodes=2, ranks=4, zero=3, offload="all",
        learning_rate=3e-6,
    )  # fmt: skip
    made = deepspeed_settings(config, "cuda", "bf16")
    assert made["train_micro_batch_size_per_gpu"] * made["gradient_accumulation_steps"] * 8 == 32
    assert made["train_batch_size"] == 32
    assert (made["bf16"]["enabled"], made["fp16"]["enabled"]) == (True, False)
    assert made["zero_optimization"]["stage"] == 3
    assert made["zero_optimization"]["offload_param"]["device"] == "cpu"
    assert made["optimizer"]["params"]["lr"] == 3e-6
    assert deepspeed_settings(TrainingConfig(), "cuda", "bf16") == {}
