"""What the `#SBATCH` lines of a template mean for an instance: its resources, role and options.

asks = asks_of(["--partition", "hopper-prod", "--gpus=8", "-t", "2:00:00"])
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ccai_core.errors import ConfigError

logger = logging.getLogger(__name__)

_SHORT = {
    "A": "account", "a": "array", "b": "begin", "C": "constraint", "c": "cpus-per-task",
    "D": "chdir", "d": "dependency", "e": "error", "F": "nodefile", "G": "gpus", "H": "hold",
    "J": "job-name", "k": "no-kill", "L": "licenses", "m": "distribution", "N": "nodes",
    "n": "ntasks", "o": "output", "O": "overcommit", "p": "partition", "Q": "quiet", "q": "qos",
    "s": "oversubscribe", "t": "time", "W": "wait", "w": "nodelist", "x": "exclude",
}  # fmt: skip
_FLAGS = frozenset(
    "contiguous exclusive hold no-kill no-requeue overcommit oversubscribe parsable quiet reboot "
    "requeue spread-job use-min-nodes verbose wait".split()
)
_ROLE = frozenset("account partition qos constraint reservation exclude".split())
_ONE = frozenset("nodes ntasks ntasks-per-node".split())
_GPUS = frozenset("gpus gpus-per-node gpus-per-task gres".split())
# Logs, names, signals and requeueing are the platform's own; the rest means nothing to it.
_OURS = frozenset(
    "error export export-file get-user-env job-name no-requeue open-mode output parsable quiet "
    "requeue signal verbose wait".split()
)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass
class Asks:
    """What a template asks of Slurm, in the platform's words."""

    role: dict[str, str] = field(default_factory=dict)
    """Fields of `RoleConfig`."""
    sbatch: dict[str, str | bool] = field(default_factory=dict)
    """Options that go to sbatch as they are."""
    plan: dict[str, Any] = field(default_factory=dict)
    """cpus, gpus, memory_gb, minutes of an instance."""


def asks_of(words: Iterable[str]) -> Asks:
    """Read options as sbatch does.

    Raises:
        ConfigError: what is asked for is no single instance on one node, or cannot be read.
    """
    said = dict(_options(iter(words)))
    asks = Asks()
    for name, value in said.items():
        if name in _OURS:
            logger.info("#SBATCH --%s of the template is the platform's own; passed over.", name)
        elif name in _ROLE:
            asks.role[name] = str(value)
        elif name in _ONE:
            if value != "1" and value != "1-1":
                raise ConfigError(f"#SBATCH --{name}={value}: an instance is one task on one node.")
        elif name == "array":
            raise ConfigError("#SBATCH --array: ask for `instances` instead.")
        elif name == "cpus-per-task":
            asks.plan["cpus"] = _number(name, str(value))
        elif name == "time":
            asks.plan["minutes"] = _minutes(str(value))
        elif name in _GPUS and (name != "gres" or str(value).startswith("gpu")):
            kind, asks.plan["gpus"] = _gpus(name, str(value))
            if kind:
                asks.role["gpu_type"] = kind
        elif name not in {"mem", "mem-per-cpu", "mem-per-gpu"}:
            asks.sbatch[name] = value
    _memory(said, asks)
    return asks


def _options(words: Iterator[str]) -> Iterator[tuple[str, str | bool]]:
    held = list(words)
    while held:
        word = held.pop(0)
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
        elif re.fullmatch(r"-[A-Za-z].*", word):
            if word[1] not in _SHORT:
                raise ConfigError(f"#SBATCH {word}: sbatch has no such option that is known here.")
            name, equals, value = _SHORT[word[1]], word[2:3], word[2:].removeprefix("=")
        else:
            raise ConfigError(f"#SBATCH {word}: is no option.")
        if equals:
            yield name, value
        elif name in _FLAGS or not held or held[0].startswith("-"):
            yield name, True
        else:
            yield name, held.pop(0)


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal()):
        raise ConfigError(f"#SBATCH --{name}={value}: is no whole number.")
    return int(value)


def _gpus(name: str, value: str) -> tuple[str, int]:
    parts = value.removeprefix("gpu").removeprefix(":") if name == "gres" else value
    kind, _, count = parts.rpartition(":")
    if parts and not parts[-1].isdecimal():  # gpu:h100 is one of them
        kind, count = parts, "1"
    return kind, _number(name, count or "1")


def _minutes(value: str) -> float | None:
    """Read minutes, m:s, h:m:s, d-h, d-h:m or d-h:m:s."""
    if value.upper() in {"UNLIMITED", "INFINITE", "-1", "0"}:
        return None
    days, dash, rest = value.rpartition("-")
    numbers = [_number("time", part) for part in rest.split(":")]
    if len(numbers) > 3:
        raise ConfigError(f"#SBATCH --time={value}: is no time.")
    if dash:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
        hours += 24 * _number("time", days)
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    return hours * 60 + minutes + seconds / 60


def _memory(said: dict[str, str | bool], asks: Asks) -> None:
    for name, count in (
        ("mem", 1),
        ("mem-per-cpu", asks.plan.get("cpus", 1)),
        ("mem-per-gpu", asks.plan.get("gpus", 1)),
    ):
        if name not in said:
            continue
        found = re.fullmatch(r"([0-9]+)([KMGT]?)B?", str(said[name]).upper())
        if not found:
            raise ConfigError(f"#SBATCH --{name}={said[name]}: is no amount of memory.")
        gigabytes = int(found[1]) * _UNITS[found[2] or "M"] * count / 1e9
        # Slurm's 0 is all that the node has.
        if gigabytes:
            asks.plan["memory_gb"] = gigabytes
        else:
            asks.sbatch["mem"] = "0"
