"""A training that is asked to leave saves the step it is at, in all its processes."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ccai_core import checkpoints, training_leaving
from ccai_core.dpo import train
from ccai_core.errors import DataError
from ccai_core.guarded_trainer import GuardedTrainer
from ccai_core.models import resolve_model
from ccai_core.training_config import TrainingConfig
from ccai_core.training_leaving import Leaving
from ccai_core.training_log import read_log
from tests.tiny_model import save_tiny_model
from tests.together import start_together

# Forty updates, and no checkpoint of their own.
SETTINGS: dict[str, Any] = {
    "epochs": 10, "batch_size": 1, "gradient_accumulation": 4, "learning_rate": 1e-3,
    "save_steps": 1000, "validation_fraction": 0.2, "seed": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model and pairs."""
    root = tmp_path_factory.mktemp("leaving")
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
    corpus = [json.dumps(row) for row in rows]
    model = save_tiny_model(root / "tiny", corpus, vocabulary=400, spread=0.02)
    pairs = root / "pairs.jsonl"
    pairs.write_text("".join(f"{row}\n" for row in corpus))
    return model, pairs


def trained(place: tuple[Path, Path], out: Path, **settings: Any) -> list[str]:
    """Train to the end; returns what each process printed."""
    ranks = settings.get("ranks", 1)
    words = (*place, out, {**SETTINGS, **settings})
    running = start_together(ranks, "tests.together:train_tiny", *words)
    said = [each.communicate(timeout=180)[0] for each in running]
    assert [each.returncode for each in running] == [0] * ranks, "\n".join(said)
    return said


def steps(out: Path) -> int:
    log = out / "training_log.jsonl"
    lines = read_log(log) if log.exists() else []
    return max((int(line["step"]) for line in lines), default=0)


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "layout"), [({}, ""), ({"ranks": 2, "zero": 2}, "zero2-2")])
@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGUSR2])
def test_it_goes_on_from_the_very_step_at_which_it_was_asked(
    place: tuple[Path, Path],
    tmp_path: Path,
    settings: dict[str, Any],
    layout: str,
    asked: signal.Signals,
) -> None:
    out = tmp_path / "asked"
    words = (*place, out, {**SETTINGS, **settings})
    running = start_together(settings.get("ranks", 1), "tests.together:train_tiny", *words)
    until = time.monotonic() + 120
    while steps(out) < 5:
        assert time.monotonic() < until
        time.sleep(0.005)
    # Of several, one is enough: the others hear of it at the end of the step.
    running[-1].send_signal(asked)
    assert [each.wait(60) for each in running] == [-asked] * len(running)
    left_at = steps(out)
    (saved,) = checkpoints.sealed(out / "checkpoints" / layout)
    assert checkpoints.step_of(saved) == left_at < 40
    assert f"resumed from {left_at}" in trained(place, out, **settings)[0]
    trained(place, tmp_path / "whole", **settings)
    one, other = (
        load_file(each / "model" / "model.safetensors") for each in (out, tmp_path / "whole")
    )
    assert all((one[name] == other[name]).all() for name in other)


# --- in the middle of an update -------------------------------------------------------------------


def config_of(**settings: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({**SETTINGS, "epochs": 3, "method": "lora", **settings})


@pytest.fixture(scope="module")
def whole(place: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody asked to leave. Dropout makes its weights depend on every draw."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("whole")
    train(config_of(lora_dropout=0.5), resolve_model(str(place[0])), place[1], out, "cpu")
    return out


class Ended(SystemExit):
    """What the handler around the training raises."""


@pytest.fixture
def ended() -> Iterator[list[int]]:
    """Handlers of the process, as a job has them; returns the signals that reached them."""
    reached: list[int] = []

    def end(signum: int, _: Any) -> None:
        reached.append(signum)
        raise Ended(signum)

    before = {each: signal.signal(each, end) for each in (signal.SIGTERM, signal.SIGUSR2)}
    yield reached
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize(
    ("batch", "kept"),
    [
        (16, 4),  # the last one of an update after which comes an evaluation
        (18, 4),  # of the first update of the second epoch
        (22, 5),
        (3, None),  # of the first update: there is nothing to save
    ],
)
def test_asked_within_an_update_it_keeps_the_last_whole_one(
    place: tuple[Path, Path],
    whole: Path,
    ended: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    kept: int | None,
) -> None:
    run = (config_of(lora_dropout=0.5), resolve_model(str(place[0])), place[1], tmp_path, "cpu")
    compute, batches = GuardedTrainer.training_step, itertools.count(1)

    def asked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if next(batches) == batch:
            os.kill(os.getpid(), signal.SIGUSR2)
        return compute(self, *args, **kwargs)

    monkeypatch.setattr(GuardedTrainer, "training_step", asked)
    with pytest.raises(Ended):
        train(*run)
    assert ended == [signal.SIGUSR2]
    found = checkpoints.sealed(tmp_path / "checkpoints")
    assert [checkpoints.step_of(each) for each in found] == ([kept] if kept else [])
    assert not (tmp_path / "training.json").exists()
    assert train(*run).resumed_from == kept
    one, other = (load_file(each / "model" / "model.safetensors") for each in (tmp_path, whole))
    assert all((one[name] == other[name]).all() for name in other)


def test_a_checkpoint_of_its_step_is_not_written_again(
    place: tuple[Path, Path], ended: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = (config_of(save_steps=2), resolve_model(str(place[0])), place[1], tmp_path, "cpu")
    seal, sealed = checkpoints.seal, []

    def asked(checkpoint: Path) -> None:
        seal(checkpoint)
        sealed.append(checkpoints.step_of(checkpoint))
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(checkpoints, "seal", asked)
    for last in (2, 4):
        with pytest.raises(Ended):
            train(*run)
        assert sealed[-1] == last
    assert sealed == [2, 4]


# --- signals --------------------------------------------------------------------------------------


def ask(signum: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), signum)


def test_a_signal_is_noted_and_granted_when_the_block_ends(ended: list[int]) -> None:
    done = []

    def block() -> None:
        with Leaving(print):
            ask(signal.SIGUSR2)
            # Slurm's own signal beside the one that the job has asked for.
            ask(signal.SIGTERM)
            done.append("the rest of the block")

    with pytest.raises(Ended):
        block()
    assert done
    assert ended == [signal.SIGUSR2]


def test_without_a_signal_nothing_happens_and_the_handlers_are_back(ended: list[int]) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR2)]
    alarm, runs = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0] > 0
    with Leaving(print):
        pass
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR2)] == handlers
    with pytest.raises(Ended), Leaving(print):
        ask()
    assert signal.getsignal(signal.SIGALRM) == alarm
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == runs


@pytest.mark.parametrize("impatient", ["second signal", "time is up"])
def test_it_leaves_at_once(
    ended: list[int], monkeypatch: pytest.MonkeyPatch, impatient: str
) -> None:
    monkeypatch.setattr(training_leaving, "_SAME_WISH_S", 0.0)
    began = time.monotonic()

    def block() -> None:
        with Leaving(print, patience=0.1 if impatient == "time is up" else 60.0):
            ask()
            time.sleep(0.01)
            if impatient == "second signal":
                ask()
            time.sleep(20)

    with pytest.raises(Ended):
        block()
    assert time.monotonic() - began < 5
    assert ended == [signal.SIGTERM]


def test_an_error_is_not_hidden_by_the_wish(ended: list[int]) -> None:

    def block() -> None:
        with Leaving(print):
            ask()
            raise DataError("the disk is full")

    with pytest.raises(DataError):
        block()
    assert ended == []


def test_what_did_not_train_to_its_end_never_goes_on(ended: list[int]) -> None:
    """Though the handler of before may only take note, as ours does."""
    signal.signal(signal.SIGTERM, lambda *_: ended.append(0))
    with pytest.raises(SystemExit) as left, Leaving(print):
        ask()
    assert ended == [0]
    assert left.value.code == 128 + signal.SIGTERM


def test_an_ignored_signal_stays_ignored(ended: list[int]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Leaving(print):
        ask()


def test_in_another_thread_the_signals_are_not_touched() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def enter() -> None:
        with Leaving(print):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


def test_patience_is_less_than_the_job_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCAI_LEAVE_SECONDS", "60")
    assert Leaving(print)._patience == 55
    monkeypatch.setenv("CCAI_LEAVE_SECONDS", "2")
    assert Leaving(print)._patience == 1
