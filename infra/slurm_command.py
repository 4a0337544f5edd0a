"""Slurm's commands as functions, its settings, and which of its failures pass.

run("squeue", "--me"); setting("MaxArraySize")
"""

from __future__ import annotations

import functools
import logging
import os
import subprocess

from ccai_core.errors import ConfigError

logger = logging.getLogger(__name__)

_OWN_DEFAULTS = ("SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SLURM_CLUSTERS", "SLURM_TIME_")
_TIMEOUT_S = 60.0
_TRANSIENT = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "connect failure",
    "Zero Bytes were transmitted",
    "Unexpected message received",
    "standby mode",
    "has not answered",
    "temporarily unable",
    "Transport endpoint is not connected",
)


class SlurmError(Exception):
    """A command of Slurm failed; the message is what it wrote."""


def run(*command: str) -> str:
    """Run a command of Slurm and return what it prints.

    Raises:
        ConfigError: there is no Slurm on this machine.
        SlurmError: it failed; the message is its own.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(_OWN_DEFAULTS)
    }
    try:
        done = subprocess.run(  # noqa: S603 - a command of Slurm and words that are data, no shell
            command,
            capture_output=True,
            text=True,
            env=environment | {"LC_ALL": "C"},
            timeout=_TIMEOUT_S,
            process_group=0,  # a Ctrl-C is for the driver to answer, by scancel for one
            check=False,
        )
    except FileNotFoundError:
        raise ConfigError(
            f"`{command[0]}` is not on PATH: this machine has no Slurm. Log in to one of the "
            "cluster's, or choose another profile with --cluster."
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} has not answered for {_TIMEOUT_S:g} s") from None
    if done.returncode:
        raise SlurmError(done.stderr.strip() or f"{command[0]} ended with {done.returncode}")
    return done.stdout


def without_user_defaults() -> list[str]:
    """Return words before `sbatch` that keep a user's and an allocation's variables from it.

    SBATCH_* would outdo the profile; SLURM_* of an allocation that the driver runs in would travel
    into the job.
    """
    names = [
        name
        for name in sorted(os.environ)
        if name.startswith(("SBATCH_", "SLURM_")) and name != "SLURM_CONF"
    ]
    return ["env", *(word for name in names for word in ("-u", name))]


@functools.cache
def _settings(conf: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in run("scontrol", "show", "config").splitlines())
    return {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}


def setting(name: str, default: str = "") -> str:
    """Return a setting of the cluster, e.g. MaxArraySize."""
    try:
        return _settings(conf()).get(name, default)
    except SlurmError:
        return default


@functools.cache
def _has_accounting(conf: str) -> bool:
    kind = _settings(conf).get("AccountingStorageType", "")
    if kind.endswith("slurmdbd"):
        return True
    logger.warning(
        "This Slurm keeps no accounting (%s): what became of a job can only be seen until Slurm "
        "forgets it (MinJobAge, here %s), and who cancelled it not at all. Jobs that end without "
        "a result are noticed all the same.",
        kind or "AccountingStorageType is not set",
        _settings(conf).get("MinJobAge", "unknown"),
    )
    return False


def has_accounting() -> bool:
    """Whether `sacct` works here; says once what it costs where it does not."""
    try:
        return _has_accounting(conf())
    except SlurmError:
        return False


def is_passing(error: SlurmError) -> bool:
    """Whether a failure is of the kind that goes away when Slurm's controller is back."""
    return any(word in str(error) for word in _TRANSIENT)


def conf() -> str:
    """Return which Slurm is meant, as far as the environment says."""
    return os.environ.get("SLURM_CONF", "")
