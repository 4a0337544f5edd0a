"""Keep a fleet of inference servers up: one job an instance, replaced when lost, ended together.

A thread looks about once a second: at the jobs, at the registered addresses, at what others ask.
The fleet can be used from its first ready instance on; the others join when the cluster lets them.
A driver that was killed and is started again finds its instances and goes on with them; if nobody
does, they drain and end when the lease runs out.

    with Fleet(plan, cluster, workspace.fleets / plan.name, workspace.jobs) as fleet:
        fleet.wait_ready()
        client = Client(fleet.endpoints, fleet.key)
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from ccai_core.errors import CCAIError, ConfigError, FleetError, JobRefusedError
from infra.cluster import ClusterConfig
from infra.endpoint import Endpoint, make_key, registered
from infra.fleet_health import Health
from infra.fleet_jobs import FleetJobs
from infra.fleet_member import Member
from infra.fleet_plan import FleetFiles, FleetPlan, FleetRecord, InstanceView, this_driver
from infra.lease import Lease

logger = logging.getLogger(__name__)

_LOOK_S = 1.0
_LEASE_S = 5.0
# An instance gives up by itself when it is not ready in time. One that hangs before it can
# count (a module that does not load, an image that does not come) is ended this much later.
_OVERDUE_S = 60.0
_FOR_GOOD = (ConfigError, JobRefusedError)


class Fleet:
    """A context manager: entering starts or joins the instances, leaving ends them."""

    key: str
    """What every endpoint wants as its bearer token; made when the fleet is entered."""

    def __init__(
        self, plan: FleetPlan, cluster: ClusterConfig, folder: Path, jobs: Path, owner: str = ""
    ) -> None:
        """Prepare a fleet.

        Args:
            plan: how many servers of what.
            cluster: where they run.
            folder: the fleet's own folder, which every node sees.
            jobs: the workspace's jobs folder.
            owner: whom GPU hours are charged to, a flow run.
        """
        self.plan, self.files = plan, FleetFiles(folder)
        self._jobs = FleetJobs(plan, cluster, self.files, jobs, owner)
        self._record = FleetRecord(plan=plan, cluster=cluster, jobs=jobs.expanduser().resolve())
        self._wanted = plan.instances
        self._members: dict[int, Member] = {}
        self._failures = 0
        self._error: Exception | None = None
        self._asked_down = False
        self._shown: tuple[tuple[Endpoint, ...], tuple[InstanceView, ...]] = ((), ())
        # A look can take seconds where a scheduler is slow. Nobody who asks waits for it: what it
        # found is put up whole at its end.
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"fleet {plan.name}", daemon=True)
        self._held = ExitStack()

    def __enter__(self) -> Fleet:
        """Take the fleet's folder, join what lives of it, and begin to look after it.

        Raises:
            FleetError: another driver has it, or instances of another plan are alive in it.
        """
        with ExitStack() as held:
            held.enter_context(self.files.held())
            live = self._jobs.live()
            self._refuse_another_plan(len(live))
            self.files.write_record(self._record)
            self.files.forget_requests()
            self.key = make_key(self.files.folder)
            # Left for the instances to see run out should this process be killed.
            self._jobs.lease = Lease(self.files.lease, every=_LEASE_S).start()
            held.callback(self._jobs.lease.stop)
            self._health = Health(self.key).start()
            held.callback(self._health.stop)
            self._members = {number: self._jobs.attach(number) for number in live}
            self._held = held.pop_all()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """End every instance, and return when they are gone."""
        with self._held:
            self._stop.set()
            self._thread.join()
            self._health.stop()
            self._shown = ((), self._shown[1])
            self._take_arrivals()
            self._jobs.close(list(self._members.values()))
            for member in self._members.values():
                self.files.forget_endpoint(member.name)
            self._members.clear()
            self._say(ended=True)
            # Nobody will come: what might have been missed need not wait its full time.
            self._jobs.lease.release()

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return those that are ready now: registered, their job alive, answering.

        Raises:
            FleetError: the fleet has given up; says why.
        """
        if self._error is not None:
            raise self._error
        return self._shown[0]

    def wait_ready(self, instances: int = 1) -> None:
        """Wait until so many instances are ready; the queue has no time limit.

        Raises:
            FleetError: none will come; carries the end of the log of the last that tried.
        """
        with self._news:
            while len(self.endpoints()) < instances:
                if self._stop.is_set():
                    raise FleetError(f"Fleet {self.plan.name}: it was ended before it was ready.")
                self._news.wait(_LOOK_S)

    def scale(self, instances: int) -> None:
        """Ask for another number of instances; those that are too many drain and end.

        Raises:
            ConfigError: fewer than one.
        """
        if instances < 1:
            raise ConfigError(
                f"A fleet has at least one instance, not {instances}; `down` ends it."
            )
        if instances != self._wanted:
            logger.info("Fleet %s: %d instances wanted.", self.plan.name, instances)
        self._wanted = instances

    def states(self) -> tuple[InstanceView, ...]:
        """Return every instance, by number."""
        return self._shown[1]

    def render(self) -> str:
        """Return the script that would be submitted for an instance; nothing is."""
        return self._jobs.render()

    @property
    def wanted(self) -> int:
        """Instances asked for now."""
        return self._wanted

    @property
    def was_asked_down(self) -> bool:
        """Whether somebody asked for the end with `fleet down`."""
        return self._asked_down

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except (CCAIError, OSError) as error:
                # A file system or a scheduler that is away for a moment must not end the fleet.
                logger.warning("Fleet %s: %s Looking on.", self.plan.name, error)
            except Exception as error:
                # Whoever waits for endpoints must hear of it: nobody looks after them any more.
                self._error = error
                raise
            self._stop.wait(_LOOK_S)

    def _look(self) -> None:
        self._obey()
        self._take_arrivals()
        if self._error is None:
            self._adjust_number()
        addresses = {each.instance: each for each in registered(self.files.folder)}
        now = time.monotonic()
        for member in list(self._members.values()):
            self._look_at(member, addresses.get(member.name), now)
        staying = [each for each in self._members.values() if not each.leaving]
        self._health.watch(each.endpoint for each in staying if each.endpoint)
        if any(each.failures == 0 for each in self._ready()):
            self._failures = 0
        if self._error is None:
            idle = [each for each in self._members.values() if each.is_idle and not each.leaving]
            self._jobs.submit_soon([each for each in idle if each.due <= now])
        self._say()

    def _take_arrivals(self) -> None:
        for member in self._members.values():
            if member.arrived is not None:
                member.joined(member.arrived)
                if member.leaving:
                    self._jobs.cancel_soon([member])

    def _look_at(self, member: Member, address: Endpoint | None, now: float) -> None:
        if member.refusal is not None or member.how is not None:
            self._lost(member, now)
        if member.job is None or member.concluding:
            return
        status = self._jobs.status(member)
        answers = address is not None and self._health.answers(address)
        member.look(status, address, answers=answers, now=now)
        if member.is_over and member.leaving:
            self._lost(member, now)
        elif member.is_over:
            self.files.forget_endpoint(member.name)
            self._jobs.conclude_soon(member)
        elif member.is_overdue(self.plan.ready_minutes * 60 + _OVERDUE_S, now):
            logger.warning("Instance %s does not get ready; it is ended.", member.name)
            self._jobs.cancel_soon([member])

    def _lost(self, member: Member, now: float) -> None:
        self.files.forget_endpoint(member.name)
        if member.leaving:
            del self._members[member.number]
            return
        refusal = member.refusal
        how = member.failed(now, in_need=len(self._ready()) < self.plan.min_instances)
        logger.warning("Instance %s was lost. %s", member.name, how)
        if isinstance(refusal, _FOR_GOOD):
            # Others may be up already when a limit is reached; with them the fleet goes on.
            if not any(each.job is not None for each in self._members.values()):
                self._give_up(refusal)
            return
        self._failures += 1
        # As many again as there are, and one more: what passes by itself is over by then.
        if not self._ready() and self._failures > 2 * self._wanted:
            self._give_up(self._verdict(how))

    def _verdict(self, how: str) -> FleetError:
        return FleetError(
            f"Fleet {self.plan.name}: no instance stays up; {self._failures} ended in a row. "
            f"Mend what the last one says, then start again. {how}"
        )

    def _give_up(self, error: CCAIError) -> None:
        """Let everything end, and tell whoever asks why."""
        self._error = error
        for member in self._members.values():
            member.leaving = True
        self._jobs.cancel_soon(list(self._members.values()))

    def _adjust_number(self) -> None:
        staying = [each for each in self._members.values() if not each.leaving]
        if len(staying) > self._wanted:
            leaving = sorted(staying, key=self._least_missed)[: len(staying) - self._wanted]
            for member in leaving:
                member.leaving = True
            self._jobs.cancel_soon(leaving)
        for member in [each for each in self._members.values() if each.leaving and each.is_idle]:
            del self._members[member.number]
        number = 0
        while len([m for m in self._members.values() if not m.leaving]) < self._wanted:
            if number not in self._members:
                self._members[number] = Member(number)
            number += 1

    def _least_missed(self, member: Member) -> tuple[int, int, int]:
        """Order by what is lost with it: not yet there, not yet ready, then by its load."""
        order = ["waiting", "queued", "silent", "starting", "ready"].index(member.state)
        load = self._health.in_flight(member.endpoint) if member.endpoint else 0
        return order, load, -member.number

    def _obey(self) -> None:
        asked = self.files.take_scale()
        if asked is not None and asked >= 1:
            self._wanted = asked
            logger.info("Fleet %s: %d instances wanted, by request.", self.plan.name, asked)
        if self.files.take_down() and not self._asked_down:
            self._asked_down = True
            self._give_up(FleetError(f"Fleet {self.plan.name} was ended by `fleet down`."))

    def _ready(self) -> list[Member]:
        members = self._members.values()
        return [each for each in members if each.state == "ready" and not each.leaving]

    def _say(self, *, ended: bool = False) -> None:
        views = tuple(self._members[number].view() for number in sorted(self._members))
        ready = tuple(each.endpoint for each in self._ready() if each.endpoint is not None)
        with self._news:
            self._shown = (ready, views)
            self._news.notify_all()
        state = this_driver(self._wanted, views).model_copy(
            update={"ended": ended, "error": str(self._error or "")}
        )
        if state != self.files.state():
            self.files.write_state(state)

    def _refuse_another_plan(self, live: int) -> None:
        known = self.files.record()
        if known is None or live == 0:
            return
        differences = self.plan.differences(known.plan)
        if differences:
            raise FleetError(
                f"In {self.files.folder} {live} instances of another plan are alive: "
                f"{'; '.join(differences)}. Give this fleet another name, or end the other one "
                f"first: `python -m infra.fleet down --name {known.plan.name}`."
            )


def end_orphans(files: FleetFiles) -> bool:
    """End what is left of a fleet whose driver is gone; False: its driver is there.

    Raises:
        FleetError: there never was a fleet here.
    """
    record = files.record()
    if record is None:
        raise FleetError(f"{files.folder}: no fleet was ever started here.")
    with ExitStack() as held:
        try:
            held.enter_context(files.held())
        except FleetError:
            return False
        jobs = FleetJobs(record.plan, record.cluster, files, record.jobs, owner="")
        jobs.lease = Lease(files.lease, every=_LEASE_S).start()
        jobs.close([jobs.attach(number) for number in jobs.live()])
        jobs.lease.release()
        files.write_state(this_driver(0).model_copy(update={"ended": True}))
    return True
