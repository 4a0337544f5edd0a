"""What a fleet should be, and the files through which its driver, its instances and others meet.

fleets/<name>/plan.json     what runs here, where, and where its jobs are recorded
fleets/<name>/state.json    what the driver saw last, for `fleet status`
fleets/<name>/lease         renewed by the driver; every instance watches it
fleets/<name>/scale, down   what somebody else asks of the driver
fleets/<name>/key, endpoints/, instances/   see `infra.endpoint` and `infra.instance`

    files = FleetFiles(workspace.fleets / "judge")
    files.ask_scale(4)
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self, TypeVar

from filelock import FileLock, Timeout
from pydantic import Field, model_validator

from ccai_core.config import Config, parse_config
from ccai_core.errors import ConfigError, FleetError
from ccai_core.files import write_whole
from infra.cluster import ClusterConfig
from infra.engines import ServeSpec
from infra.instance import InstanceName
from infra.job_record import Resources

C = TypeVar("C", bound=Config)

InstanceState = Literal["waiting", "queued", "starting", "ready", "silent", "draining"]
"""waiting: not submitted yet (no place, or backing off); silent: ready before, answers no more."""


class FleetPlan(Config):
    """How many servers of what, and what each may take."""

    name: InstanceName = Field(description="Name of the fleet; it names files and jobs.")
    serve: ServeSpec = Field(description="Which model on which engine.")
    instances: int = Field(1, ge=1, le=512, description="Instances to ask for.")
    min_instances: int = Field(
        1, ge=1, le=512, description="Below this, lost ones are replaced without long pauses."
    )
    cpus: int | None = Field(None, ge=1, description="Processor cores of an instance.")
    memory_gb: float | None = Field(None, gt=0, description="Memory of an instance (10^9 bytes).")
    minutes: float | None = Field(
        None, gt=0, description="Time limit of an instance; then it is queued again."
    )
    ready_minutes: float = Field(
        30.0, gt=0, description="Longest wait from an instance's start to its first token."
    )

    @model_validator(mode="after")
    def _asks_for_its_minimum(self) -> Self:
        if self.min_instances > self.instances:
            raise ValueError(
                f"min_instances ({self.min_instances}) exceeds instances ({self.instances})"
            )
        return self

    @property
    def resources(self) -> Resources:
        """What one instance asks of the cluster."""
        return Resources(
            cpus=self.cpus,
            gpus=self.serve.gpus,
            memory_gb=self.memory_gb,
            minutes=self.minutes,
            # It has nothing to save: started again it serves again.
            checkpointable=True,
        )

    @property
    def key_prefix(self) -> str:
        """What the keys of its jobs begin with; the instance's name follows."""
        return f"fleet-{self.name}-"

    def differences(self, other: FleetPlan) -> list[str]:
        """Return what an instance of the other plan would be made differently by; counts aside."""
        counts = {"instances", "min_instances"}
        mine, theirs = self.model_dump(exclude=counts), other.model_dump(exclude=counts)
        flat = [(name, mine[name], theirs[name]) for name in mine if name != "serve"]
        serve = [(f"serve.{n}", mine["serve"][n], theirs["serve"][n]) for n in mine["serve"]]
        return [f"{name} {a!r} is {b!r} there" for name, a, b in [*flat, *serve] if a != b]


class FleetRecord(Config):
    """What `plan.json` holds: enough to find and end a fleet whose driver is gone."""

    plan: FleetPlan = Field(description="The fleet.")
    cluster: ClusterConfig = Field(description="The profile under which its jobs run.")
    jobs: Path = Field(description="Folder of the jobs' records.")


class InstanceView(Config):
    """One instance as its driver saw it last."""

    name: str = Field(description="Its number within the fleet.")
    state: InstanceState = Field(description="What it does.")
    job_id: str = Field("", description="Its job, as the scheduler calls it.")
    attempt: int = Field(0, description="Jobs that this instance has had.")
    restarts: int = Field(0, description="Times the scheduler has started this job again.")
    node: str = Field("", description="Machine it runs on.")
    url: str = Field("", description="Where it answers.")
    note: str = Field("", description="What is worth knowing, e.g. why it waits.")


class FleetState(Config):
    """What `state.json` holds."""

    wanted: int = Field(description="Instances asked for now.")
    host: str = Field(description="Machine of the driver.")
    pid: int = Field(description="The driver's process there.")
    ended: bool = Field(False, description="Whether the driver has ended the fleet.")
    error: str = Field("", description="Why the fleet gave up.")
    instances: tuple[InstanceView, ...] = Field((), description="All that there are.")


class RouterRecord(Config):
    """What `router.json` holds."""

    url: str = Field(description="One URL for all instances.")


class FleetFiles:
    """The folder of one fleet."""

    def __init__(self, folder: Path) -> None:
        """Refer to a folder, which need not exist yet."""
        self.folder = folder.expanduser().resolve()
        self.lease = self.folder / "lease"
        self._plan, self._state = self.folder / "plan.json", self.folder / "state.json"
        self._router = self.folder / "router.json"
        self._scale, self._down = self.folder / "scale", self.folder / "down"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the fleet's one driver; the operating system lets go when this process ends.

        Raises:
            FleetError: another driver has it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            state = self.state()
            who = f"process {state.pid} on {state.host}" if state else "another process"
            raise FleetError(
                f"The fleet in {self.folder} is driven by {who} already. Use its URL or wait for "
                "its end; another fleet needs another name."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def record(self) -> FleetRecord | None:
        """Return the plan that was written last; None: there never was a fleet here."""
        return _read(self._plan, FleetRecord)

    def write_record(self, record: FleetRecord) -> None:
        """Say what runs here."""
        write_whole(self._plan, record.model_dump_json(indent=2) + "\n")

    def state(self) -> FleetState | None:
        """Return what the driver saw last."""
        return _read(self._state, FleetState)

    def write_state(self, state: FleetState) -> None:
        """Say what the driver sees."""
        write_whole(self._state, state.model_dump_json(indent=2) + "\n")

    def router(self) -> RouterRecord | None:
        """Return where the router answered last."""
        return _read(self._router, RouterRecord)

    def write_router(self, url: str) -> None:
        """Say where the router answers."""
        write_whole(self._router, RouterRecord(url=url).model_dump_json() + "\n")

    def ask_scale(self, instances: int) -> None:
        """Ask the driver for another number of instances."""
        write_whole(self._scale, f"{instances}\n")

    def ask_down(self) -> None:
        """Ask the driver to end the fleet."""
        write_whole(self._down, "")

    def take_scale(self) -> int | None:
        """Return what was asked for since the last look, if anything."""
        try:
            asked = self._scale.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        self._scale.unlink(missing_ok=True)
        return int(asked) if asked.isdecimal() and asked.isascii() else None

    def take_down(self) -> bool:
        """Tell whether somebody has asked for the end since the last look."""
        try:
            self._down.unlink()
        except FileNotFoundError:
            return False
        return True

    def forget_requests(self) -> None:
        """Drop what was asked of an earlier driver."""
        self._scale.unlink(missing_ok=True)
        self._down.unlink(missing_ok=True)

    def forget_endpoint(self, instance: str) -> None:
        """Remove the address of an instance that is not there any more."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "endpoints" / f"{instance}.json").unlink()


def fleet_states(fleets: Path) -> list[FleetState]:
    """Return how the fleets in a folder are, the one whose driver spoke last at the end."""
    said = sorted(fleets.glob("*/state.json"), key=lambda file: file.stat().st_mtime)
    states = [FleetFiles(file.parent).state() for file in said]
    return [state for state in states if state is not None]


def this_driver(wanted: int, instances: tuple[InstanceView, ...] = ()) -> FleetState:
    """Return a state signed by this process."""
    return FleetState(
        wanted=wanted, host=socket.gethostname(), pid=os.getpid(), instances=instances
    )


def _read(path: Path, kind: type[C]) -> C | None:
    try:
        return parse_config(kind, json.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, ConfigError) as error:
        raise FleetError(
            f"{path} cannot be read ({error}). If none of the fleet's jobs runs any more, remove "
            "the file."
        ) from None
