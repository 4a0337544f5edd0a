"""What a training by DPO says while it runs: its log, one printed line an entry, what looks wrong.

progress = Progress(log, keep=2, tell=print)
with quiet(), progress.leaving:
    build(..., callback=progress).train()
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import datasets
from transformers.utils import logging as hf_logging

from ccai_core.training_callback import FollowedTraining
from ccai_core.training_config import Measure, Validation
from ccai_core.training_log import Event, TrainingLog
from ccai_core.training_metrics import Speed, mean_lengths, measured
from ccai_core.training_watch import Watch, concerns

# Beyond rounding: before the first step the policy is the reference, so its rewards are zero.
_ZERO_MARGIN = 1e-3
_MEASURED = {"loss": "eval_loss", "margin": "eval_rewards/margins"}


class Progress(FollowedTraining):
    """Follows a training by DPO: its speed, what looks wrong, and which weights are best."""

    def __init__(
        self,
        log: TrainingLog,
        keep: int,
        tell: Callable[[str], None],
        patience: int | None = None,
        keep_best: bool = False,
        measure: Measure = "loss",
        has_reference: bool = True,
        **about: Any,
    ) -> None:
        """Write to `log`.

        Args:
            log: the run's.
            keep: sealed checkpoints that are kept.
            tell: takes a line of output.
            patience: evaluations without a better one after which training ends.
            keep_best: whether the best weights are kept too.
            measure: what better means.
            has_reference: whether rewards are relative to the model before training.
            about: more of what the start's line says.
        """
        super().__init__(log, keep, tell, **about)
        self._patience, self._keep_best, self._measure = patience, keep_best, measure
        self._has_reference, self._beta = has_reference, 0.0
        self._speed: Speed | None = None
        self._entries: list[dict[str, Any]] = []

    def reference(self, done: int, total: int, seconds: float) -> None:
        """Say how many of the reference's log-probabilities are there, after how long."""
        rate = done / max(seconds, 1e-9)
        left = timedelta(seconds=round((total - done) / rate))
        self.log.write(
            "reference", 0, 0, 0.0, done=done, total=total, pairs_per_second=round(rate, 2)
        )
        self.tell(f"reference {done}/{total} pairs: {rate:.1f} a second, {left} left")

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Log the start, or where a resumed run goes on."""
        precision = "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32"
        self._beta = args.beta
        self._speed = Speed(given["model"], args.device.type, precision)
        self._speed.meter.go()
        self.about.update(mean_lengths(given["train_dataloader"].dataset))
        self.about.update(self._speed.about())
        self._entries = self.log.entries() if state.is_world_process_zero else []
        super().on_train_begin(args, state, control)
        self._warn(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log the last step, whatever log_steps is; save and stop when asked to leave."""
        super().on_step_end(args, state, control)
        if self._speed and (control.should_evaluate or control.should_save):
            self._speed.meter.stop()

    def measured(self, event: Event, logs: dict[str, Any], prefix: str) -> dict[str, Any]:
        """Return what TRL measured, and how fast it is."""
        if self._speed is None:
            raise RuntimeError("a training that has not begun has nothing to log")
        read, speed = self._speed.take(training=event == "step")
        beta = self._beta if self._has_reference else None
        return {**measured(logs, prefix, beta, read), **speed}

    def words(self, metrics: dict[str, Any]) -> str:
        """Return what is printed of a line's metrics."""
        return (
            f"loss {metrics['loss']:.4f}, margin {metrics['margin']:+.4f}, "
            f"accuracy {metrics['accuracy']:.2f}{_words(metrics)}"
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Log a step's or an evaluation's metrics, and say what looks wrong by now."""
        before = len(self._entries)
        super().on_log(args, state, control, logs)
        # Signs are means over ten lines, and to look for them is to read the whole log.
        if len(self._entries) > before and ("eval_loss" in logs or len(self._entries) % 10 == 0):
            self._warn(state)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Have the best weights so far saved, and end what no longer gets better."""
        watch = evaluated(state.log_history, self._measure)
        if self._keep_best and watch.best and watch.best.step == state.global_step:
            control.should_save = True
        if watch.is_over(self._patience):
            control.should_training_stop = True
            self.tell(f"Ended: {self._patience} measurements without a better one.")
        super().on_evaluate(args, state, control)
        if self._speed:
            self._speed.meter.go()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the checkpoint that was just written; only then may older ones go."""
        super().on_save(args, state, control)
        if self._speed:
            self._speed.meter.go()

    def spared(self, state: Any) -> int | None:
        """Return the best step, if its weights are to become the model."""
        best = evaluated(state.log_history, self._measure).best if self._keep_best else None
        return best.step if best else None

    def write(self, event: Event, state: Any, values: dict[str, Any]) -> None:
        """Add a line to the log, and to what is looked through for signs."""
        super().write(event, state, values)
        if state.is_world_process_zero:
            step, total = state.global_step, state.max_steps
            self._entries.append({"event": event, "step": step, "total_steps": total, **values})

    def _warn(self, state: Any) -> None:
        """Say once of each kind what is wrong by now."""
        said = {entry["kind"] for entry in self._entries if entry["event"] == "warning"}
        for kind, words in concerns(self._entries).items():
            if kind not in said:
                self.write("warning", state, {"kind": kind, "words": words})
                self.tell(f"Warning: {words}")


def _words(metrics: dict[str, Any]) -> str:
    """Say what else a printed line has room for."""
    found = []
    if "kl_token" in metrics:
        found.append(f"KL {metrics['kl_token']:+.4f} a token")
    if "tokens_per_second" in metrics:
        found.append(f"{metrics['tokens_per_second']:.0f} tokens/s")
        found.append(f"MFU {metrics['mfu']:.0%}")
        found.append(f"{metrics['peak_memory_mb']} MB at most")
    return "".join(f", {words}" for words in found)


def evaluated(history: Sequence[dict[str, Any]], measure: Measure = "loss") -> Watch:
    """Return the evaluations of a run, also those from before it was resumed."""
    name = _MEASURED[measure]
    return Watch([(e["step"], e[name]) for e in history if name in e], measure)


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
