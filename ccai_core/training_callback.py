"""What every kind of training does while it runs: a log, a printed line an entry, checkpoints.

class MyProgress(FollowedTraining):
    def measured(self, event, logs, prefix): return {"loss": logs[prefix + "loss"]}
    def words(self, metrics): return f"loss {metrics['loss']:.4f}"
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ccai_core import checkpoints
from ccai_core.training_leaving import Leaving
from ccai_core.training_log import Event, TrainingLog


class FollowedTraining(TrainerCallback):  # type: ignore[misc]
    """Writes the log and one printed line for each entry; seals and prunes checkpoints.

    Ends the training, its last whole update saved, once `leaving` was asked to.
    """

    def __init__(
        self, log: TrainingLog, keep: int, tell: Callable[[str], None], **about: Any
    ) -> None:
        """Write to `log`.

        Args:
            log: the run's.
            keep: sealed checkpoints that are kept.
            tell: takes a line of output.
            about: more of what the start's line says.
        """
        self.log, self._keep, self.tell, self.about = log, keep, tell, about
        self.leaving = Leaving(tell)
        self._began = time.monotonic()
        self._first = 0

    @abstractmethod
    def measured(self, event: Event, logs: dict[str, Any], prefix: str) -> dict[str, Any]:
        """Return a line's metrics by our names, from Trainer's, which begin with `prefix`."""

    @abstractmethod
    def words(self, metrics: dict[str, Any]) -> str:
        """Return what is printed of a line's metrics."""

    def spared(self, state: Any) -> int | None:
        """Return the step of a checkpoint that is kept, however old it is."""
        return None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log the start, or where a resumed run goes on."""
        self._began, self._first = time.monotonic(), state.global_step
        self.leaving.begin(state.global_step)
        self.write("start", state, self.about)
        self.tell(f"Training: steps {state.global_step} to {state.max_steps}.")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log the last step, whatever log_steps is; save and stop when asked to leave."""
        if state.global_step >= state.max_steps:
            control.should_log = True
        self.leaving.after_step(state, control)

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """When asked to leave, give up the update that has begun and save the last whole one."""
        self.leaving.within_step(state, control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """When asked to leave, save and stop."""
        self.leaving.after_step(state, control)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Log a step's or an evaluation's metrics; Trainer's closing summary is neither."""
        event: Event
        event, prefix = ("eval", "eval_") if "eval_loss" in logs else ("step", "")
        if f"{prefix}loss" not in logs:
            return
        metrics = self.measured(event, logs, prefix)
        self.write(event, state, metrics)
        step, total = state.global_step, state.max_steps
        self.tell(
            f"{'validation' if event == 'eval' else 'step'} {step}/{total}: "
            f"{self.words(metrics)}{self._remaining(step, total)}"
        )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the checkpoint that was just written; only then may older ones go."""
        if state.is_world_process_zero:
            root = Path(args.output_dir)
            checkpoints.seal(root / f"checkpoint-{state.global_step}")
            checkpoints.prune(root, self._keep, spare=self.spared(state))
        self.leaving.after_save(state, control)

    def write(self, event: Event, state: Any, values: dict[str, Any]) -> None:
        """Add a line to the log, if this is the process that writes it."""
        if state.is_world_process_zero:
            self.log.write(event, state.global_step, state.max_steps, state.epoch or 0.0, **values)

    def _remaining(self, step: int, total: int) -> str:
        done = step - self._first
        if done <= 0 or step == total:
            return ""
        each = (time.monotonic() - self._began) / done
        left = timedelta(seconds=round(each * (total - step)))
        return f", {each:.1f} s/step, {left} left"
