"""Which GPUs of this machine a job gets: those that the fewest other jobs of its workspace have.

devices = choose(1, taken=[["0"], ["1"]])       # of a machine with three: ["2"]
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ccai_core.errors import ConfigError
from ccai_core.files import write_whole

_FILE = "gpus"
_ASK_S = 20.0


def choose(number: int, taken: Iterable[Sequence[str]]) -> list[str]:
    """Return `number` GPUs as CUDA_VISIBLE_DEVICES names them; one may serve several jobs.

    Raises:
        ConfigError: this machine has fewer.
    """
    there = visible()
    if there is None:
        # No tool to ask, as with "auto" on a laptop: name them, and let CUDA see what it finds.
        return [str(each) for each in range(number)]
    if not there:
        return []  # Hidden on purpose.
    if number > len(there):
        raise ConfigError(
            f"A job asks for {number} GPUs; this machine has {len(there)} "
            f"({', '.join(there)}). Ask for fewer, or choose another profile with --cluster."
        )
    jobs = Counter(each for devices in taken for each in devices)
    return sorted(there, key=lambda each: (jobs[each], there.index(each)))[:number]


def visible() -> list[str] | None:
    """Return the GPUs that this process may give away, in order; None where nobody can tell."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [each.strip() for each in named.split(",") if each.strip()]
    return list(_installed()) or None


def write_given(attempt: Path, devices: Sequence[str]) -> None:
    """Note in an attempt's folder what its job has got."""
    write_whole(attempt / _FILE, ",".join(devices))


def given(attempt: Path) -> list[str]:
    """Return what the job of an attempt has got."""
    try:
        return [each for each in (attempt / _FILE).read_text(encoding="utf-8").split(",") if each]
    except FileNotFoundError:
        return []


@functools.cache
def _installed() -> tuple[str, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    asked = subprocess.run(  # noqa: S603 - a fixed command
        [program, "--query-gpu=index", "--format=csv,noheader"],
        capture_output=True, text=True, timeout=_ASK_S, check=False,
    )  # fmt: skip
    return tuple(asked.stdout.split()) if asked.returncode == 0 else ()
