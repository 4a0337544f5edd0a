"""What a profile allows: jobs at once, GPUs at once, GPU hours of one owner.

missing = lacks(limits, wanted, running)        # "" when there is room
check_hours(jobs, record, limits, is_alive)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ccai_core.errors import ConfigError, JobRefusedError
from infra.cluster import Limits
from infra.job_files import seconds_run
from infra.job_record import JobRecord, Resources, all_attempts


def lacks(limits: Limits, wanted: Resources, running: Sequence[JobRecord]) -> str:
    """Return what a job has to wait for, empty when there is room.

    Raises:
        JobRefusedError: there will never be room.
    """
    if limits.max_gpus is not None and wanted.all_gpus > limits.max_gpus:
        raise JobRefusedError(
            f"A job asks for {wanted.all_gpus} GPUs; the profile allows {limits.max_gpus} at a "
            "time (limits.max_gpus). Ask for fewer, or raise the limit."
        )
    jobs, gpus = _taken(running)
    if jobs >= limits.max_jobs:
        return f"a place ({jobs} of {limits.max_jobs} taken)"
    if limits.max_gpus is not None and wanted.all_gpus + gpus > limits.max_gpus:
        return f"{wanted.all_gpus} GPUs ({gpus} of {limits.max_gpus} taken)"
    return ""


def at_once(limits: Limits, wanted: Resources, running: Sequence[JobRecord]) -> int:
    """Return how many jobs of an array may run at a time beside those that do; at least one."""
    jobs, gpus = _taken(running)
    most = limits.max_jobs - jobs
    if limits.max_gpus is not None and wanted.all_gpus:
        most = min(most, (limits.max_gpus - gpus) // wanted.all_gpus)
    return max(1, most)


def check_hours(
    jobs: Path,
    wanted: Sequence[JobRecord],
    limits: Limits,
    is_alive: Callable[[JobRecord, Path], bool],
) -> None:
    """Refuse jobs that could use more GPU hours than their owner has left.

    Raises:
        JobRefusedError: names what is used, asked for and allowed.
        ConfigError: a job has no time limit, so nobody knows what it may use.
    """
    if limits.max_gpu_hours is None or not any(each.resources.all_gpus for each in wanted):
        return
    asked = sum(most_hours(record) for record in wanted)
    owner = wanted[0].owner
    used = used_hours(jobs, owner, is_alive)
    if used + asked > limits.max_gpu_hours:
        raise JobRefusedError(
            f"Job {wanted[0].key!r} could use {asked:.2f} GPU hours; {used:.2f} of "
            f"{limits.max_gpu_hours:g} are used or promised{f' by {owner}' if owner else ''} "
            "(limits.max_gpu_hours). Ask for less time or fewer GPUs, or raise the limit."
        )


def most_hours(record: JobRecord) -> float:
    """Return the GPU hours that a job uses if it runs until its time limit.

    Raises:
        ConfigError: it asks for GPUs and has no time limit.
    """
    if not record.resources.all_gpus:
        return 0.0
    if record.minutes is None:
        raise ConfigError(
            f"Job {record.key!r} asks for GPUs without a time limit, so what it may cost is "
            "unknown. Give it `minutes`, or set `minutes` in the profile."
        )
    return record.resources.all_gpus * record.minutes / 60


def used_hours(jobs: Path, owner: str, is_alive: Callable[[JobRecord, Path], bool]) -> float:
    """Return the GPU hours of an owner: run times of what is over, time limits of what runs."""
    total = 0.0
    for folder, record in all_attempts(jobs):
        gpus = record.resources.all_gpus
        if gpus and record.owner == owner:
            seconds = seconds_run(folder)
            if record.minutes is not None and is_alive(record, folder):
                seconds = max(seconds, record.minutes * 60)
            total += gpus * seconds / 3600
    return total


def _taken(running: Iterable[JobRecord]) -> tuple[int, int]:
    """Return the places and GPUs taken; of an array, only as many as may run at a time."""
    arrays: dict[str, list[JobRecord]] = defaultdict(list)
    for record in running:
        arrays[record.name or record.key].append(record)
    jobs = gpus = 0
    for records in arrays.values():
        number = min(len(records), records[0].at_once or len(records))
        jobs += number
        gpus += number * records[0].resources.all_gpus
    return jobs, gpus
