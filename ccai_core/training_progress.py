"""What a training run says while it runs: its log, one printed line an entry, sealed checkpoints.

with quiet():
    build(..., callback=Progress(log, keep=2, tell=print)).train()
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import datasets
from transformers import TrainerCallback
from transformers.utils import logging as hf_logging

from ccai_core import checkpoints
from ccai_core.training_config import Validation
from ccai_core.training_log import TrainingLog
from ccai_core.training_watch import Watch

# TRL's names on the left, ours (log, curve, MLflow) on the right.
_METRICS = {
    "loss": "loss",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "logps/chosen": "logp_chosen",
    "logps/rejected": "logp_rejected",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
}

# Beyond rounding: before the first step the policy is the reference, so its rewards are zero.
_ZERO_MARGIN = 1e-3


class Progress(TrainerCallback):  # type: ignore[misc]
    """Writes the log and one printed line for each entry; seals and prunes checkpoints."""

    def __init__(
        self,
        log: TrainingLog,
        keep: int,
        tell: Callable[[str], None],
        patience: int | None = None,
        keep_best: bool = False,
        **about: Any,
    ) -> None:
        self._log, self._keep, self.tell, self._about = log, keep, tell, about
        self._patience, self._keep_best = patience, keep_best
        self._began = time.monotonic()
        self._first = 0

    def reference(self, done: int, total: int, seconds: float) -> None:
        """Say how many of the reference's log-probabilities are there, after how long."""
        rate = done / max(seconds, 1e-9)
        left = timedelta(seconds=round((total - done) / rate))
        self._log.write(
            "reference", 0, 0, 0.0, done=done, total=total, pairs_per_second=round(rate, 2)
        )
        self.tell(f"reference {done}/{total} pairs: {rate:.1f} a second, {left} left")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log the start, or where a resumed run goes on."""
        self._began, self._first = time.monotonic(), state.global_step
        self._log.write(
            "start", state.global_step, state.max_steps, state.epoch or 0.0, **self._about
        )
        self.tell(f"Training: steps {state.global_step} to {state.max_steps}.")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log the last step, whatever log_steps is."""
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Log a step's or an evaluation's metrics; Trainer's closing summary is neither."""
        event, prefix = ("eval", "eval_") if "eval_loss" in logs else ("step", "")
        if f"{prefix}loss" not in logs:
            return
        metrics = {
            ours: logs[prefix + theirs]
            for theirs, ours in _METRICS.items()
            if prefix + theirs in logs
        }
        step, total = state.global_step, state.max_steps
        self._log.write(event, step, total, state.epoch or 0.0, **metrics)  # type: ignore[arg-type]
        self.tell(
            f"{'validation' if event == 'eval' else 'step'} {step}/{total}: "
            f"loss {metrics['loss']:.4f}, margin {metrics['margin']:+.4f}, "
            f"accuracy {metrics['accuracy']:.2f}{self._remaining(step, total)}"
        )

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Have the best weights so far saved, and end what no longer gets better."""
        watch = evaluated(state.log_history)
        if self._keep_best and watch.best and watch.best.step == state.global_step:
            control.should_save = True
        if watch.is_over(self._patience):
            control.should_training_stop = True
            self.tell(f"Ended: {self._patience} measurements without a better one.")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the checkpoint that was just written; only then may older ones go."""
        if not state.is_world_process_zero:
            return
        root = Path(args.output_dir)
        checkpoints.seal(root / f"checkpoint-{state.global_step}")
        best = evaluated(state.log_history).best if self._keep_best else None
        checkpoints.prune(root, self._keep, spare=best.step if best else None)

    def _remaining(self, step: int, total: int) -> str:
        done = step - self._first
        if done <= 0 or step == total:
            return ""
        each = (time.monotonic() - self._began) / done
        left = timedelta(seconds=round(each * (total - step)))
        return f", {each:.1f} s/step, {left} left"


def evaluated(history: Sequence[dict[str, Any]]) -> Watch:
    """Return the evaluations of a run, also those from before it was resumed."""
    return Watch([(e["step"], e["eval_loss"]) for e in history if "eval_loss" in e])


def validations(
    history: Sequence[dict[str, Any]], n: int, tell: Callable[[str], None]
) -> dict[int, Validation]:
    """Return every evaluation of the run by its step, also those from before it was resumed."""
    found = {
        int(entry["step"]): Validation(
            loss=entry["eval_loss"],
            margin=entry["eval_rewards/margins"],
            accuracy=entry["eval_rewards/accuracies"],
            n=n,
        )
        for entry in history
        if "eval_loss" in entry
    }
    if 0 in found and abs(found[0].margin) > _ZERO_MARGIN:
        tell(
            f"Warning: the margin before training is {found[0].margin:.4f} instead of 0: policy "
            "and reference do not agree to rounding, so margins are off by about that much."
        )
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars and the libraries' notices to each other out of a job's log."""
    tqdm, bars = os.environ.get("TQDM_DISABLE"), datasets.are_progress_bars_disabled()
    loading = hf_logging.is_progress_bar_enabled()
    os.environ["TQDM_DISABLE"] = "1"
    datasets.disable_progress_bars()
    hf_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # TRL 1.16 still uses names that transformers 5.23 is renaming.
            warnings.filterwarnings("ignore", message=".*deprecated and will be removed in v6.*")
            yield
    finally:
        os.environ.pop("TQDM_DISABLE")
        if tqdm is not None:
            os.environ["TQDM_DISABLE"] = tqdm
        if not bars:
            datasets.enable_progress_bars()
        if loading:
            hf_logging.enable_progress_bar()
