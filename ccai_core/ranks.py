"""The processes that train one model together: who this one is, and how all of them agree.

Whoever starts them (torchrun, a job of several tasks) tells each by the variables that
torch.distributed reads. One process alone needs none and none of this costs it anything.

    with joined("cpu") as ranks:
        folder = ranks.by_first(make_folder)      # made once, known to all
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from ccai_core import deepspeed_build
from ccai_core.errors import ConfigError

T = TypeVar("T")

# The others wait while the first writes a model of a hundred gigabytes to a slow disk.
_PATIENCE = timedelta(hours=3)


class FirstFailed(SystemExit):
    """Ends a process because the first one has raised an error, and reports it."""

    def __init__(self) -> None:
        super().__init__(0)


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run."""

    rank: int = 0
    local: int = 0
    """Its number among those of its machine."""
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    def by_first(self, work: Callable[[], T]) -> T:
        """Let the first process do the work, and return in each what came of it.

        Raises:
            FirstFailed: in all others, when it raised an error in the first.
        """
        if self.world == 1:
            return work()
        from torch.distributed import broadcast_object_list

        said: list[tuple[bool, T | None]] = [(False, None)]
        try:
            if self.first:
                said = [(True, work())]
        finally:
            # Also after an error: the others wait.
            broadcast_object_list(said, src=0)
        good, value = said[0]
        if not good:
            raise FirstFailed
        return value  # type: ignore[return-value]  # what `work` returned

    def gather(self, mine: T) -> list[T]:
        """Return what each process has, in the order of their ranks, to all of them."""
        if self.world == 1:
            return [mine]
        from torch.distributed import all_gather_object

        found: list[T] = [mine] * self.world
        all_gather_object(found, mine)
        return found


def this_rank() -> Ranks:
    """Return which process this is, by the variables that torch.distributed reads.

    Raises:
        ConfigError: one of them is no number.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    try:
        rank, local, world = (int(os.environ.get(name, name == "WORLD_SIZE")) for name in names)
    except ValueError as error:
        raise ConfigError(f"{', '.join(names)} in the environment: {error}.") from None
    return Ranks(rank, local, world) if world > 1 else Ranks()


@contextmanager
def joined(device: str, deepspeed: bool = False) -> Iterator[Ranks]:
    """Meet the other processes, if there are any, for as long as the block lasts.

    `deepspeed` also where there is one process alone, and says that DeepSpeed is used.
    """
    if device == "cpu":
        # What libraries load of DeepSpeed would look for GPUs, and warn where there are none.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    ranks = this_rank()
    if ranks.world == 1 and not deepspeed:
        yield ranks
        return
    import torch

    if device == "cuda":
        torch.cuda.set_device(ranks.local)
    with _known_as(ranks):
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
            rank=ranks.rank,
            world_size=ranks.world,
            timeout=_PATIENCE,
        )
        if deepspeed:
            from deepspeed import init_distributed

            if device == "cpu":
                deepspeed_build.build(deepspeed_build.COMMUNICATION)
            # Before any weights are read: it is asked then for how many they are divided.
            init_distributed(
                dist_backend="nccl" if device == "cuda" else "gloo", auto_mpi_discovery=False
            )
        yield ranks
        # Not after an error: the others may never come, and learn it when this process has ended.
        torch.distributed.destroy_process_group()


@contextmanager
def _known_as(ranks: Ranks) -> Iterator[None]:
    """Set the variables of a process that is alone, which nobody else has."""
    if ranks.world > 1:
        yield
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
