"""The one tree of errors a user can meet. A message says what is wrong, where, and what to do.

Everything here ends a command with exit code 2 and one paragraph; any other exception is a bug and
keeps its traceback.

    raise DataError("prompts.csv line 3: column 'hazard' is missing; expected prompt_text, hazard")
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CCAIError(Exception):
    """Base of all errors that are the user's to mend (input, environment, limits)."""


class ConfigError(CCAIError):
    """A setting is unknown, missing or out of range."""


class DataError(CCAIError):
    """A data file (prompts, constitution, pairs, journal) cannot be used as it is."""


class ModelError(CCAIError):
    """A model cannot be found, loaded or fitted on the device."""


class ArtifactError(CCAIError):
    """A workspace or artifact directory is locked, damaged or not writable."""


class EngineError(CCAIError):
    """An inference engine or fleet cannot answer."""


class FleetError(EngineError):
    """A fleet has no instance that answers, and none will come."""


class JobError(CCAIError):
    """A submitted job failed; carries the tail of its log. This very class: its code raised."""


class JobTimeoutError(JobError):
    """It reached its time limit and cannot go on in a new allocation."""


class JobMemoryError(JobError):
    """It used more memory than it had asked for."""


class JobCrashedError(JobError):
    """It ended with a non-zero exit code or by a signal, without a result."""


class JobCancelledError(JobError):
    """Somebody ended it: its owner, an administrator or Ctrl-C."""


class JobPreemptedError(JobError):
    """It had to give its place to another job, and may not be requeued."""


class JobNodeError(JobError):
    """Its node failed, and it may not be requeued."""


class JobLostError(JobError):
    """It is gone, and nobody can say what became of it."""


class JobRefusedError(JobError):
    """The cluster, or the limits of its profile, do not let it in."""


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the closest valid word, or the list of valid words."""
    choices = sorted(valid)
    if guess := closest(word, choices):
        return guess
    return f" Valid: {', '.join(choices)}." if choices else ""


def closest(word: str, valid: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"`, or nothing: for errors that list what is valid themselves."""
    close = difflib.get_close_matches(word, sorted(valid), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""
