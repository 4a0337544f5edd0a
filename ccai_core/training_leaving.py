"""Leave a training in order when asked to: end the batch at hand, save, and only then go.

A job is asked to leave by a signal: before its time limit, for a preemption, or when it is
cancelled. Whoever runs it may have a handler that raises an exception where the function stands,
which may be in the middle of an update or of a save. Within the block a first signal is only noted,
and looked for wherever the training's state is whole. When the block ends, or when that takes too
long, or at a second signal, the handler that was there before gets the signal after all.

    with progress.leaving:      # a Leaving, that Progress asks wherever the state is whole
        trainer.train()         # returns early, a checkpoint saved
    finish()                    # not reached when the process was asked to leave
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from ccai_core.random_state import RandomState
from ccai_core.ranks import this_rank

# Slurm sends two signals for one preemption, its own and the one the job asked for.
_SAME_WISH_S = 2.0
# Of the time until the process is killed, what is left for those that end with it.
_AFTERWARDS_S = 5.0
# Where nobody says how long there is.
_PATIENCE_S = 90.0
_WISHES = (signal.SIGTERM, signal.SIGUSR2)
# Of the clock that runs once a wish was noted; its handler runs in the main thread, as theirs do.
_TIME_IS_UP = signal.SIGALRM


class Leaving:
    """Has the last whole update saved once this process, or another of the run, is asked to go."""

    def __init__(self, tell: Callable[[str], None], patience: float | None = None) -> None:
        """Be ready to leave.

        Args:
            tell: takes a line of output.
            patience: seconds from a signal until it is passed on whatever was saved; unset: what
                CCAI_LEAVE_SECONDS in the environment leaves.
        """
        self._tell = tell
        self._patience = _patience() if patience is None else patience
        self._before: dict[int, Any] = {}
        self._asked: int | None = None
        self._asked_at = 0.0
        self._clock_before = (0.0, 0.0)
        self._saved_at = 0
        self._whole = RandomState()

    def __enter__(self) -> Self:
        """Take the signals over. Only a main thread can: in others nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            return self
        for signum in _WISHES:
            before = signal.getsignal(signum)
            # What is ignored stays so; what was not installed by Python could not be restored.
            if before not in (None, signal.SIG_IGN):
                self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give the signals back; without an error, do what the noted one asks for."""
        if kind is None and self._asked is not None:
            self._leave(None)
        self._give_back()

    # --- when the state is whole ------------------------------------------------------------------

    def begin(self, step: int) -> None:
        """Remember what training goes on from: that is sealed, and not written once more."""
        self._saved_at = step

    def after_step(self, state: Any, control: Any) -> None:
        """When asked to leave, save and stop: after an update, and after an evaluation."""
        # An evaluation draws random numbers too (a loader's seed); what is saved has drawn them.
        self._whole.take()
        self._stop_if_asked(state, control)

    def within_step(self, state: Any, control: Any) -> None:
        """When asked to leave, give up the update that has begun: no weight has changed yet."""
        if self._by_any():
            # But its batches have drawn random numbers (dropout), which they will draw again.
            self._whole.put_back()
            self._stop_if_asked(state, control)

    def after_save(self, state: Any, control: Any) -> None:
        """Stop if that was asked for while a checkpoint was written."""
        self._saved_at = state.global_step
        self._stop_if_asked(state, control)

    def _stop_if_asked(self, state: Any, control: Any) -> None:
        if not self._by_any():
            return
        if not control.should_training_stop:
            self._tell(f"Asked to leave: it will go on from step {state.global_step}.")
        control.should_training_stop = True
        if state.global_step > self._saved_at:
            control.should_save = True

    def _by_any(self) -> bool:
        """Whether this or another process was asked; all have to call it."""
        asked = max(this_rank().gather(self._asked or 0))
        if asked and self._asked is None:
            self._asked = asked
        return bool(asked)

    # --- signals ----------------------------------------------------------------------------------

    def _note(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if _TIME_IS_UP not in self._before and signum != _TIME_IS_UP:
            self._asked, self._asked_at = self._asked or signum, now
            self._before[_TIME_IS_UP] = signal.signal(_TIME_IS_UP, self._note)
            self._clock_before = signal.setitimer(signal.ITIMER_REAL, self._patience)
        elif signum == _TIME_IS_UP or now - self._asked_at > _SAME_WISH_S:
            self._leave(frame)

    def _leave(self, frame: FrameType | None) -> None:
        """Let the handler that was there before do what it does; end here should it return."""
        asked = self._asked or signal.SIGTERM
        before = self._before.get(asked, signal.SIG_DFL)
        self._give_back()
        if callable(before):
            before(asked, frame)
        elif before == signal.SIG_DFL:
            signal.raise_signal(asked)
        # What was not trained to its end must not be taken for finished.
        raise SystemExit(128 + asked)

    def _give_back(self) -> None:
        # Once only: the handler of before may install others.
        if _TIME_IS_UP in self._before:
            signal.setitimer(signal.ITIMER_REAL, *self._clock_before)
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}


def _patience() -> float:
    """Return for how long an update and a save may take, of the time that the job has to end."""
    said = os.environ.get("CCAI_LEAVE_SECONDS")
    return _PATIENCE_S if said is None else max(1.0, float(said) - _AFTERWARDS_S)
